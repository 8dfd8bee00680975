// Puts the page together and starts it.

import { answerText } from "./answer.js";
import { ApiError } from "./api.js";
import { showUploads } from "./attachments.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConversationView } from "./conversation.js";
import { h, iconButton, setChildren } from "./dom.js";
import { language, t } from "./i18n.js";
import { linkMarks } from "./picture.js";
import { apiKey, onChange, settings } from "./settings.js";
import { openKeyDialog, openSettings } from "./settings_dialog.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { TopBar } from "./topbar.js";

const NOTICE_TIME = 6000;
const SAID_LENGTH = 500;
const HERE = "tusi.conversation"; // which conversation this tab shows

const store = new Store((error) => {
  console.error(error);
  chat.emit("notice", t("noStorage"));
});
const chat = new Chat(store);
const live = h("div", { class: "offscreen", role: "status", "aria-live": "polite" });
const notices = h("div", { class: "notices", role: "status" });
const conversation = new ConversationView(chat, hero);
const composer = new Composer(chat, language, () => conversation.editLast());
const showSettings = () => openSettings(chat, () => askKey());
const sidebar = new Sidebar(chat, { onSettings: showSettings, onOpened: () => opened() });
const topbar = new TopBar(chat, { onMenu: () => toggleMenu(), onSettings: showSettings, onConnect: connect });
const veil = h("div", { class: "veil", on: { click: () => toggleMenu(false) } });
const drop = h("div", { class: "drop", "aria-hidden": "true" }, h("p", {}));
const skip = h("a", { class: "skip", href: "#message" });
const main = h("main", { class: "main" }, topbar.element, conversation.element, h("div", { class: "dock" }, conversation.latest, composer.element));

function hero() {
  const suggestion = (key) => h("button", { type: "button", class: "suggestion", on: { click: () => composer.suggest(t(key)) } }, t(key));
  return h(
    "section",
    { class: "hero" },
    h("h2", {}, t("heroTitle")),
    h("p", {}, t("heroText")),
    h("button", { type: "button", class: "hero-drop", on: { click: () => composer.attachments.pick() } }, t("heroDrop")),
    h("div", { class: "suggestions" }, ["try1", "try2", "try3"].map(suggestion)),
  );
}

function renew() {
  const root = document.documentElement;
  root.lang = language() === "zh" ? "zh-CN" : "en";
  root.dataset.theme = settings().theme;
  document.title = t("title");
  skip.textContent = t("skip");
  drop.firstChild.textContent = t("dropHere");
  topbar.renew();
  sidebar.renew();
  composer.renew();
  if (chat.current) conversation.renew();
}

function toggleMenu(wanted = null) {
  const isWide = matchMedia("(min-width: 900px)").matches;
  const name = isWide ? "has-no-menu" : "has-menu";
  const isOpen = wanted ?? !(isWide ? !document.body.classList.contains(name) : document.body.classList.contains(name));
  document.body.classList.toggle(name, isWide ? !isOpen : isOpen);
  sidebar.element.inert = !isOpen;
  topbar.setMenu(isOpen);
  if (isOpen && !isWide) sidebar.element.querySelector("button")?.focus();
}

function fitMenu() {
  document.body.classList.remove("has-menu");
  const isWide = matchMedia("(min-width: 900px)").matches;
  sidebar.element.inert = !isWide || document.body.classList.contains("has-no-menu");
  topbar.setMenu(!sidebar.element.inert);
}

function opened() {
  if (!matchMedia("(min-width: 900px)").matches) toggleMenu(false);
  composer.focus();
}

async function connect() {
  topbar.setState("connecting");
  chat.api.setKey(apiKey());
  try {
    await chat.describe();
    topbar.setState("ready");
  } catch (error) {
    topbar.setState("offline");
    if (error instanceof ApiError && error.kind === "unauthorized") askKey(Boolean(apiKey()));
    else if (!(error instanceof ApiError)) console.error(error);
  }
}

function askKey(wasWrong = false) {
  openKeyDialog(connect, wasWrong);
}

function notice(text, { action = null, onAction = () => {}, onEnd = () => {} } = {}) {
  let isOver = false;
  const end = (act) => {
    if (isOver) return;
    isOver = true;
    element.remove();
    act();
  };
  const button = action ? h("button", { type: "button", class: "plain", on: { click: () => end(onAction) } }, action) : null;
  const element = h("div", { class: "notice" }, h("span", {}, text), button, iconButton("close", t("close"), () => end(onEnd)));
  notices.append(element);
  setTimeout(() => end(onEnd), NOTICE_TIME);
}

// Other errors may pass until the message is sent, and are shown with its answer.
function unsent({ name }, { kind, param }) {
  if (kind === "too_large" && param) notice(t("tooLarge", { name, sizes: param }));
}

// What somebody who does not see the page is told of an answer that comes.
function say(event, answer) {
  if (answer.conversation !== chat.current.conversation.id) return;
  const call = answer.turns.flatMap((turn) => turn.calls).at(-1);
  const words = {
    thinking: () => t("sayThinking"),
    writing: () => t("sayWriting"),
    call: () => (call.name === "image_zoom_in_tool" ? t("sayZoom") : t("sayTool", { name: call.name })),
    busy: () => t("errBusyNow"),
    stopped: () => t("sayStopped"),
    done: () => t("sayDone", { text: answerText(answer).slice(0, SAID_LENGTH) }),
    error: () => t("sayError", { text: answer.error?.message || answer.error?.kind || "" }),
  };
  if (words[event]) live.textContent = words[event]();
  if (event === "error" && answer.error?.kind === "unauthorized") askKey(Boolean(apiKey()));
}

function onKey(event) {
  const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]") !== null;
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) {
    if (document.body.classList.contains("has-menu")) toggleMenu(false);
    else if (chat.isRunning()) chat.stop();
  } else if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    composer.focus();
  } else if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    chat.newConversation().then(opened);
  }
}

function takeDrops() {
  let depth = 0;
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const set = (value) => {
    depth = value;
    document.body.classList.toggle("is-dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => hasFiles(event) && set(depth + 1));
  addEventListener("dragleave", (event) => hasFiles(event) && set(Math.max(0, depth - 1)));
  addEventListener("drop", () => set(0), true);
  composer.attachments.takeFrom(document.body);
}

async function start() {
  setChildren(document.body, [skip, sidebar.element, veil, main, drop, notices, live]);
  linkMarks(document.body);
  showUploads(chat);
  takeDrops();
  addEventListener("keydown", onKey);
  chat.on("notice", notice);
  chat.on("unsent", unsent);
  chat.on("key", () => askKey());
  chat.on("server", () => topbar.setState("ready"));
  chat.on("open", () => remember(chat.current.conversation.id));
  let looks = `${settings().language} ${settings().theme}`;
  onChange(({ language: chosen, theme }) => {
    if (looks !== (looks = `${chosen} ${theme}`)) renew();
  });
  matchMedia("(min-width: 900px)").addEventListener("change", fitMenu);
  renew();
  fitMenu();
  const connected = connect();
  await store.open();
  await chat.start(recalled());
  composer.focus();
  await connected;
}

function remember(id) {
  try {
    sessionStorage.setItem(HERE, id);
    localStorage.setItem(HERE, id);
  } catch {
    // the newest conversation is shown then
  }
}

function recalled() {
  try {
    return sessionStorage.getItem(HERE) ?? localStorage.getItem(HERE);
  } catch {
    return null;
  }
}

start();
