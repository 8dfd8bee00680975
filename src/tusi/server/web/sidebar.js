// The list of conversations: open, rename, delete (and take that back), export, import.

import { h, icon, iconButton, setChildren } from "./dom.js";
import { exportJson, exportMarkdown, readExport } from "./export.js";
import { day, t } from "./i18n.js";

export class Sidebar {
  #renaming = null;

  /** onSettings: opens the settings; onOpened: a conversation was chosen. */
  constructor(chat, { onSettings, onOpened }) {
    Object.assign(this, { chat, onSettings, onOpened });
    this.list = h("nav", { class: "chats" });
    this.head = h("div", { class: "sidebar-head" });
    this.foot = h("div", { class: "sidebar-foot" });
    this.file = h("input", { type: "file", accept: ".json,application/json", class: "offscreen", tabindex: "-1", "aria-hidden": "true" });
    this.file.addEventListener("change", () => this.#import());
    this.element = h("aside", { id: "sidebar", class: "sidebar" }, this.head, this.list, this.foot, this.file);
    for (const event of ["list", "open"]) chat.on(event, () => this.#update());
  }

  renew() {
    const fresh = () => this.chat.newConversation().then(this.onOpened);
    setChildren(this.head, [
      h("button", { type: "button", class: "button new-chat", on: { click: fresh } }, icon("add"), t("newChat")),
    ]);
    setChildren(this.foot, [
      h("button", { type: "button", class: "plain", on: { click: () => this.file.click() } }, t("importChat")),
      h("button", { type: "button", class: "plain", on: { click: this.onSettings } }, icon("settings"), t("settings")),
      h("p", { class: "local" }, t("local")),
    ]);
    this.list.setAttribute("aria-label", t("chats"));
    this.#shown = "";
    this.#update();
  }

  #shown = "";

  #update() {
    const conversations = this.chat.sorted();
    const current = this.chat.current?.conversation.id;
    const state = JSON.stringify([conversations.map((c) => [c.id, c.title, day(c.updated)]), current, this.#renaming]);
    if (state === this.#shown) return;
    this.#shown = state;
    const groups = new Map();
    for (const conversation of conversations) {
      const name = day(conversation.updated);
      groups.set(name, [...(groups.get(name) ?? []), conversation]);
    }
    setChildren(
      this.list,
      [...groups].map(([name, items]) => [h("h2", {}, name), h("ul", {}, items.map((item) => this.#item(item, item.id === current)))]),
    );
    if (this.#renaming) this.list.querySelector("input")?.select();
  }

  #item(conversation, isCurrent) {
    const { id, title } = conversation;
    if (this.#renaming === id) return h("li", {}, this.#nameField(conversation));
    const open = () => this.chat.openConversation(id).then(this.onOpened);
    const name = title || t("untitled");
    const button = h("button", { type: "button", class: "chat", "aria-current": isCurrent ? "page" : null, title: name, on: { click: open } }, name);
    const rename = () => {
      this.#renaming = id;
      this.#update();
    };
    const actions = h(
      "div",
      { class: "chat-actions" },
      iconButton("edit", t("rename"), rename),
      iconButton("trash", t("remove"), () => this.#remove(id, name)),
    );
    return h("li", { class: isCurrent ? "is-current" : null }, button, actions);
  }

  #nameField({ id, title }) {
    const field = h("input", { type: "text", class: "rename", "aria-label": t("rename") });
    field.value = title;
    const end = (keep) => {
      if (this.#renaming !== id) return;
      this.#renaming = null;
      if (keep) this.chat.rename(id, field.value).catch(console.error);
      this.#update();
    };
    field.addEventListener("blur", () => end(true));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(false);
      }
    });
    return field;
  }

  async #remove(id, title) {
    await this.chat.hide(id);
    const forget = () => this.chat.forget(id).catch(console.error);
    this.chat.emit("notice", t("removed", { title }), { action: t("undo"), onAction: () => this.chat.hide(id, false), onEnd: forget });
  }

  async #import() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    try {
      await this.chat.takeIn(readExport(await file.text()));
      this.onOpened();
    } catch (error) {
      console.error(error);
      this.chat.emit("notice", t("importFailed"));
    }
  }
}

/** The menu of what can be done with the conversation that is shown. */
export function exportMenu(chat) {
  const item = (label, make) => {
    const button = h("button", { type: "button", role: "menuitem" }, label);
    button.addEventListener("click", async () => {
      details.open = false;
      summary.focus();
      await make(chat.current);
    });
    return button;
  };
  const summary = h("summary", { class: "icon-button", "aria-label": t("exportMenu"), title: t("exportMenu") }, icon("export"));
  const items = [item(t("exportMarkdown"), exportMarkdown), item(t("exportJson"), exportJson)];
  const details = h("details", { class: "menu" }, summary, h("div", { class: "menu-items", role: "menu" }, items));
  details.addEventListener("focusout", (event) => {
    if (!details.contains(event.relatedTarget)) details.open = false;
  });
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    event.stopPropagation();
    details.open = false;
    summary.focus();
  });
  return details;
}
