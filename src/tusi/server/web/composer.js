// Where a message is written: text, pictures and videos, the tools that may be used, and how much is thought.
// What is typed is kept at every key; it is let go of only once it has become a message.

import { Attachments } from "./attachments.js";
import { h, icon, iconButton, setChildren } from "./dom.js";
import { t } from "./i18n.js";
import { change, draft, setDraft, settings } from "./settings.js";

const TOOL_WORDS = {
  en: { image_zoom_in_tool: "Zoom", image_search: "Image search", knowledge_search: "Knowledge", calculator: "Calculator" },
  zh: { image_zoom_in_tool: "放大", image_search: "搜图", knowledge_search: "知识库", calculator: "计算器" },
};

export class Composer {
  constructor(chat, language, onEditLast) {
    Object.assign(this, { chat, language, onEditLast });
    this.area = h("textarea", { id: "message", class: "composer-text", rows: "1", enterkeyhint: "send", autocomplete: "off" });
    this.attachments = new Attachments(chat, {
      onAdd: (record) => chat.attach(record),
      onRemove: (id) => chat.detach(id),
      onChange: () => this.#updateButton(),
    });
    this.bar = h("div", { class: "composer-bar" });
    this.button = h("button", { type: "submit", class: "send" });
    this.element = h("form", { class: "composer" }, this.attachments.element, this.area, this.bar);
    this.area.addEventListener("input", () => this.#typed());
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      if (chat.isRunning()) chat.stop();
      else this.#send();
    });
    this.area.addEventListener("keydown", (event) => this.#key(event));
    this.attachments.takeFrom(this.element);
    chat.on("open", () => this.#open());
    for (const event of ["path", "node"]) chat.on(event, () => this.#updateButton());
    chat.on("server", () => this.renew());
  }

  /** Writes all words anew. */
  renew() {
    this.area.placeholder = t("placeholder");
    this.area.setAttribute("aria-label", t("message"));
    setChildren(this.bar, [
      iconButton("image", t("attach"), () => this.attachments.pick(), { class: "attach" }),
      this.#tools(),
      h("span", { class: "grow" }),
      this.button,
    ]);
    this.#updateButton(true);
  }

  focus() {
    this.area.focus();
  }

  /** Puts a text there to be changed or sent. */
  suggest(text) {
    this.area.value = text;
    this.#typed();
    this.focus();
  }

  #open() {
    const { conversation, media } = this.chat.current;
    this.area.value = draft(conversation.id);
    this.attachments.show(conversation.draftMedia.map((id) => media.get(id)).filter(Boolean));
    this.#grow();
    this.renew();
  }

  #typed() {
    setDraft(this.chat.current.conversation.id, this.area.value);
    this.#grow();
    this.#updateButton();
  }

  #grow() {
    this.area.style.setProperty("height", "auto");
    this.area.style.setProperty("height", `${this.area.scrollHeight}px`);
  }

  #key(event) {
    // While Chinese is being entered, Enter chooses a word.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.chat.isRunning()) this.#send();
    } else if (event.key === "ArrowUp" && !this.area.value && !this.attachments.ids().length) {
      event.preventDefault();
      this.onEditLast();
    }
  }

  async #send() {
    const text = this.area.value;
    const media = this.attachments.ids();
    if (!text.trim() && !media.length) return;
    const { id } = this.chat.current.conversation;
    this.area.value = "";
    this.attachments.show([]);
    this.#grow();
    await this.chat.send(text, media);
    if (draft(id) === text) setDraft(id, "");
  }

  #updateButton(force = false) {
    if (this.chat.current === null) return;
    const isRunning = this.chat.isRunning();
    this.button.disabled = !isRunning && !this.area.value.trim() && !this.attachments.ids().length;
    if (!force && this.button.classList.contains("is-stop") === isRunning && this.button.firstChild) return;
    this.button.classList.toggle("is-stop", isRunning);
    this.button.setAttribute("aria-label", isRunning ? t("stop") : t("send"));
    this.button.title = isRunning ? t("stop") : t("send");
    setChildren(this.button, [icon(isRunning ? "stop" : "send")]);
  }

  #tools() {
    const tools = this.chat.description?.tools ?? [];
    if (!tools.length) return null;
    const words = TOOL_WORDS[this.language()] ?? {};
    const boxes = tools.map(({ id, description }) => {
      const box = h("input", { type: "checkbox", name: id, checked: settings().tools[id] !== false });
      box.addEventListener("change", () => change({ tools: { ...settings().tools, [id]: box.checked } }));
      return h("label", { class: "tool-box-choice", title: description ?? null }, box, h("span", {}, words[id] ?? id));
    });
    return h("fieldset", { class: "tool-choices" }, h("legend", { class: "offscreen" }, t("tools")), boxes);
  }
}
