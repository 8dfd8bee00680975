// The line above the conversation: which model answers, in which precision, how much of its context is left.

import { contextUsed } from "./answer.js";
import { h, iconButton, setChildren } from "./dom.js";
import { number, t } from "./i18n.js";
import { exportMenu } from "./sidebar.js";

export class TopBar {
  /** onMenu: shows or hides the conversations; onSettings; onConnect: asks the server again what it is. */
  constructor(chat, { onMenu, onSettings, onConnect }) {
    Object.assign(this, { chat, onMenu, onSettings, onConnect });
    this.state = "connecting"; // connecting, ready, offline
    this.status = h("div", { class: "status" });
    this.element = h("header", { class: "topbar" });
    for (const event of ["server", "path", "open", "node"]) chat.on(event, () => this.#update());
  }

  renew() {
    this.menu = iconButton("menu", t("openMenu"), this.onMenu, { class: "menu-button", "aria-controls": "sidebar" });
    const settings = iconButton("settings", t("settings"), this.onSettings, { class: "settings-button" });
    setChildren(this.element, [this.menu, h("h1", {}, "图思", h("span", { lang: "en" }, "Tusi")), this.status, exportMenu(this.chat), settings]);
    this.#shown = "";
    this.#update();
  }

  setState(state) {
    this.state = state;
    this.#update();
  }

  setMenu(isOpen) {
    this.menu.setAttribute("aria-expanded", String(isOpen));
    this.menu.setAttribute("aria-label", isOpen ? t("closeMenu") : t("openMenu"));
    this.menu.title = isOpen ? t("closeMenu") : t("openMenu");
  }

  #shown = "";

  #update() {
    const path = this.chat.current?.tree.path() ?? [];
    const used = path.reduce((last, node) => (node.role === "assistant" ? (contextUsed(node) ?? last) : last), null);
    const { description } = this.chat;
    const state = JSON.stringify([this.state, this.chat.model(), description?.facts, used]);
    if (state === this.#shown) return;
    this.#shown = state;
    setChildren(this.status, this.state === "ready" ? this.#facts(used) : [this.#trouble()]);
  }

  #trouble() {
    if (this.state === "connecting") return h("span", { class: "muted" }, t("connecting"));
    return h("span", { class: "is-offline", role: "alert" }, t("offline"), h("button", { type: "button", class: "plain", on: { click: this.onConnect } }, t("reconnect")));
  }

  #facts(used) {
    const { facts, models } = this.chat.description;
    const all = models.find((card) => card.id === this.chat.model())?.max_model_len ?? null;
    const name = this.chat.model() ?? "";
    return [
      h("span", { class: "model-name", title: name }, name.split("/").pop()),
      facts.precision ? h("span", { class: "precision", title: t("precisionTitle") }, facts.precision) : null,
      all === null ? null : meter(used ?? 0, all),
    ];
  }
}

function meter(used, all) {
  const left = Math.max(0, all - used);
  const title = t("contextTitle", { used: number(used), all: number(all) });
  const text = used ? t("contextLeft", { n: short(left) }) : t("contextAll", { n: short(all) });
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("span", { style: { "inline-size": `${Math.min(100, (used / all) * 100)}%` } }));
  return h("span", { class: "context", title }, bar, h("span", {}, text));
}

function short(count) {
  return number(count, { notation: "compact", maximumFractionDigits: 1 });
}
