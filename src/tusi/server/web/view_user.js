// A message of the person: its pictures and videos, its text, and the form in which it can be changed.

import { Attachments } from "./attachments.js";
import { copyText, h, icon, iconButton, setChildren } from "./dom.js";
import { t } from "./i18n.js";
import { mediumUrl, stage } from "./picture.js";
import { versionSwitch } from "./versions.js";

export class UserView {
  #state = "";
  #isEditing = false;

  constructor(chat) {
    this.chat = chat;
    this.media = h("div", { class: "user-media" });
    this.text = h("div", { class: "user-text" });
    this.foot = h("footer", { class: "message-foot" });
    this.element = h("article", { class: "message is-user", "aria-label": t("you") }, this.media, this.text, this.foot);
  }

  /** context: {record(id), firstPicture, marks(picture), open(pictures, at), versions}. */
  update(node, context) {
    this.node = node;
    if (this.#isEditing) return;
    const records = node.media.map((id) => context.record(id));
    const marks = records.map((record, at) => (record?.kind === "image" ? context.marks(pictureIndex(records, at, context)) : []));
    const state = JSON.stringify([node.text, node.media, marks, context.versions, records.map((record) => record?.width)]);
    if (state === this.#state) return;
    this.#state = state;
    this.context = context;
    this.media.className = `user-media${records.length === 1 ? " is-one" : ""}`;
    setChildren(this.media, records.map((record, at) => this.#medium(records, record, at, marks[at])));
    this.media.hidden = !records.length;
    setChildren(this.text, [node.text]);
    this.text.hidden = !node.text;
    setChildren(this.foot, [versionSwitch(this.chat, node.id, context.versions), this.#actions(node)]);
  }

  /** Opens the form. */
  edit() {
    if (this.#isEditing) return;
    this.#isEditing = true;
    const form = new EditForm(this.chat, this.node, this.context, () => this.#endEdit());
    this.element.classList.add("is-editing");
    setChildren(this.element, [form.element]);
    form.focus();
  }

  #endEdit() {
    this.#isEditing = false;
    this.element.classList.remove("is-editing");
    setChildren(this.element, [this.media, this.text, this.foot]);
    this.foot.querySelector(".edit")?.focus();
  }

  #medium(records, record, at, marks) {
    if (record === undefined) return h("span", { class: "lost" }, t("lost"));
    if (record.kind === "video") return this.#video(record, at);
    if (record.width === null) return h("span", { class: "file" }, icon("image"), record.name);
    const index = pictureIndex(records, at, this.context);
    const alt = t("pictureAlt", { n: index + 1, name: record.name });
    const open = () => this.context.open(index);
    return stage(record, { alt, marks, names: false, onOpen: open, openLabel: t("openPicture", { n: index + 1 }) });
  }

  #video(record, at) {
    const label = t("video", { n: at + 1 });
    const video = h("video", { src: mediumUrl(record), controls: true, playsinline: true, preload: "metadata", "aria-label": `${label}: ${record.name}`, data: { medium: record.id } });
    video.addEventListener("error", () => video.replaceWith(h("span", { class: "file" }, icon("image"), record.name)), { once: true });
    return video;
  }

  #actions(node) {
    const copy = iconButton("copy", t("copy"), async () => {
      if (await copyText(node.text)) this.chat.emit("notice", t("copied"));
    });
    return h("div", { class: "actions" }, node.text ? copy : null, iconButton("edit", t("edit"), () => this.edit(), { class: "edit" }));
  }
}

function pictureIndex(records, at, context) {
  return context.firstPicture + records.slice(0, at).filter((record) => record?.kind === "image").length;
}

class EditForm {
  constructor(chat, node, context, onEnd) {
    this.area = h("textarea", { class: "edit-text", rows: "1", "aria-label": t("message") });
    this.area.value = node.text;
    const keep = (record) => chat.keepMedium(record);
    this.attachments = new Attachments(chat, { records: node.media.map(context.record).filter(Boolean), onAdd: keep });
    const save = () => {
      const media = this.attachments.ids();
      if (!this.area.value.trim() && !media.length) return;
      onEnd();
      chat.edit(node.id, this.area.value, media).catch(console.error);
    };
    this.element = h(
      "form",
      { class: "edit-form" },
      this.attachments.element,
      this.area,
      h(
        "div",
        { class: "edit-buttons" },
        iconButton("add", t("attach"), () => this.attachments.pick()),
        h("span", { class: "grow" }),
        h("button", { type: "button", class: "button", on: { click: onEnd } }, t("cancel")),
        h("button", { type: "submit", class: "button is-primary" }, t("save")),
      ),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      save();
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        onEnd();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === this.area) {
        event.preventDefault();
        save();
      }
    });
    this.attachments.takeFrom(this.element);
  }

  focus() {
    this.area.focus();
    this.area.setSelectionRange(this.area.value.length, this.area.value.length);
  }
}
