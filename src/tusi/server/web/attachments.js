// The row of pictures and videos that go with a message: picked, dropped or pasted, and taken away again. Each shows how
// much of it has been sent while that is under way.

import { h, icon, iconButton, setChildren } from "./dom.js";
import { t } from "./i18n.js";
import { fromFile } from "./media.js";
import { mediumUrl } from "./picture.js";

/** Lets every row show how far its media are. Called once. */
export function showUploads(chat) {
  chat.on("upload", (id) => {
    const bars = document.querySelectorAll(`progress[data-upload="${CSS.escape(id)}"]`);
    for (const bar of bars) setProgress(bar, chat.uploads.progress(id));
  });
}

function setProgress(bar, progress) {
  bar.hidden = progress === null;
  bar.value = progress ?? 0;
}

export class Attachments {
  #records = [];

  /** onAdd(record), onRemove(id): keep it, forget it; both may take their time. onChange(): the row looks different. */
  constructor(chat, { records = [], onAdd = async () => {}, onRemove = async () => {}, onChange = () => {} }) {
    Object.assign(this, { chat, onAdd, onRemove, onChange });
    this.element = h("ul", { class: "attachments" });
    this.input = h("input", { type: "file", accept: "image/*,video/*,.mkv,.heic,.tiff", multiple: true, class: "offscreen", tabindex: "-1", "aria-hidden": "true" });
    this.input.addEventListener("change", () => {
      this.add(this.input.files);
      this.input.value = "";
    });
    this.show(records);
  }

  ids() {
    return this.#records.map((record) => record.id);
  }

  show(records) {
    this.#records = [...records];
    setChildren(this.element, [...this.#records.map((record) => this.#item(record)), this.input]);
    this.element.hidden = !this.#records.length;
    this.onChange();
  }

  pick() {
    this.input.click();
  }

  async add(files) {
    for (const file of [...files]) {
      const record = await fromFile(file, this.chat.current.conversation.id);
      if (record === null) {
        this.chat.emit("notice", t("notMedia", { name: file.name }));
        continue;
      }
      this.show([...this.#records, record]);
      await this.onAdd(record);
    }
  }

  /** Takes what is dropped on an element or pasted into it. */
  takeFrom(element) {
    element.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length) return;
      event.preventDefault();
      event.stopPropagation();
      this.add(files);
    });
    element.addEventListener("dragover", (event) => {
      if ([...event.dataTransfer.types].includes("Files")) event.preventDefault();
    });
    element.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      event.stopPropagation();
      element.classList.remove("is-over");
      this.add(event.dataTransfer.files);
    });
  }

  #item(record) {
    const isShown = record.kind === "image" && record.width !== null;
    const preview = isShown
      ? h("img", { src: mediumUrl(record), alt: record.name })
      : record.kind === "video"
        ? h("video", { src: mediumUrl(record), muted: true, preload: "metadata", "aria-label": record.name })
        : h("span", { class: "file" }, icon("image"), record.name);
    const remove = () => {
      this.show(this.#records.filter((other) => other.id !== record.id));
      this.onRemove(record.id);
    };
    const bar = h("progress", { class: "upload", max: "1", "aria-label": t("uploadOf", { name: record.name }), data: { upload: record.id } });
    setProgress(bar, this.chat.uploads.progress(record.id));
    return h("li", {}, preview, bar, iconButton("close", t("detach", { name: record.name }), remove, { class: "detach" }));
  }
}
