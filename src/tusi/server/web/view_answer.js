// An answer: thoughts, tool calls and texts of each turn in the order in which they came, then how it ended.

import { answerText, contextUsed, isEmpty, tokensPerSecond } from "./answer.js";
import { copyText, h, icon, iconButton, setChildren } from "./dom.js";
import { duration, number, t } from "./i18n.js";
import { drawable } from "./marks.js";
import { chip, legend, stage } from "./picture.js";
import { withMarks } from "./placing.js";
import { MarkdownView } from "./render.js";
import { clock } from "./times.js";
import { ThoughtView } from "./view_thought.js";
import { ToolView } from "./view_tool.js";
import { versionSwitch } from "./versions.js";

const PROBLEMS = {
  unauthorized: "errUnauthorized", busy: "errBusyNow", too_large: "errTooLarge", refused: "errRefused",
  server: "errServer", unreachable: "errUnreachable", cut: "errCut", page: "errPage",
};

export class AnswerView {
  #turns = [];
  #endState = "";

  constructor(chat) {
    this.chat = chat;
    this.body = h("div", { class: "answer-body" });
    this.end = h("div", { class: "answer-end" });
    this.element = h("article", { class: "message is-answer", "aria-label": t("model") }, this.body, this.end);
  }

  /** context: {record, pictures, picture(index), marks, places, versions, open(pictures, at), duration, seek, maxLength}. */
  update(node, context) {
    this.node = node;
    this.context = context;
    const isRunning = this.chat.isRunning(node.id);
    this.element.setAttribute("aria-busy", String(isRunning));
    this.element.classList.toggle("is-running", isRunning);
    while (this.#turns.length < node.turns.length) this.#turns.push(new TurnView(this));
    this.#turns.length = node.turns.length;
    node.turns.forEach((turn, at) => this.#turns[at].update(turn, at === node.turns.length - 1, isRunning));
    setChildren(this.body, [...this.#turns.map((view) => view.element), this.#pending(node, isRunning)]);
    this.#updateEnd(node, isRunning);
  }

  /** What is shown while nothing has come yet. */
  #pending(node, isRunning) {
    const last = node.turns[node.turns.length - 1];
    const isQuiet = last === undefined || (!last.reasoning && !last.content && !last.calls.length);
    if (!isRunning || !isQuiet || node.error) return null;
    const sending = this.chat.sending(node.id);
    const words = sending ? t("uploading", { name: sending.name || t("crop"), n: Math.round(sending.progress * 100) }) : t("waiting");
    this.words ??= h("span", {});
    this.dots ??= h("p", { class: "pending" }, h("span", { class: "pulse" }), this.words);
    if (this.words.textContent !== words) this.words.textContent = words;
    return this.dots;
  }

  #updateEnd(node, isRunning) {
    const { versions, maxLength } = this.context;
    const second = isRunning ? Math.floor(Date.now() / 1000) : 0;
    const state = JSON.stringify([node.status, node.error, node.usage, node.finish, versions, isRunning, maxLength, second]);
    if (state === this.#endState) return;
    this.#endState = state;
    const notes = this.#notes(node, isRunning);
    setChildren(this.end, [notes, this.#foot(node, isRunning, notes === null)]);
  }

  #notes(node, isRunning) {
    if (node.error) return this.#problem(node, isRunning);
    if (isRunning) return null;
    const notes = [];
    if (node.status === "stopped") notes.push(t("stopped"));
    if (node.status === "interrupted") notes.push(t("interrupted"));
    if (node.status === "done") {
      if (node.truncated) notes.push(t("truncatedThought"));
      else if (node.finish === "length") notes.push(t("lengthEnd"));
      else if (isEmpty(node)) notes.push(t("nothing"));
    }
    if (!notes.length) return null;
    const again = h("button", { type: "button", class: "button is-small", on: { click: () => this.chat.regenerate(node.id) } }, t("regenerate"));
    return h("div", { class: "note" }, notes.map((note) => h("span", {}, note)), again);
  }

  #problem(node, isRunning) {
    const { kind, message, retryAt, param } = node.error;
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const words = isRunning && retryAt ? t("errBusy", { n: seconds }) : t(PROBLEMS[kind] ?? "errServer");
    const detail = kind === "too_large" && param ? `${param} MiB` : message;
    const retry = () => (isRunning ? this.chat.hurry(node.id) : this.chat.regenerate(node.id));
    const askKey = () => this.chat.emit("key");
    return h(
      "div",
      { class: "problem", role: "alert" },
      icon("warning"),
      h("div", {}, h("p", {}, words), detail ? h("p", { class: "problem-detail" }, detail) : null),
      kind === "unauthorized" ? h("button", { type: "button", class: "button", on: { click: askKey } }, t("keyTitle")) : null,
      h("button", { type: "button", class: "button is-primary", on: { click: retry } }, isRunning ? t("retryNow") : t("retry")),
    );
  }

  #foot(node, isRunning, offersAgain) {
    const facts = h("div", { class: "facts" }, this.#facts(node).map((fact) => h("span", {}, fact)));
    if (isRunning) return h("footer", { class: "message-foot" }, facts);
    const copy = iconButton("copy", t("copy"), async () => {
      if (await copyText(answerText(node))) this.chat.emit("notice", t("copied"));
    });
    const again = iconButton("again", t("regenerate"), () => this.chat.regenerate(node.id), { class: "again" });
    const actions = h("div", { class: "actions" }, answerText(node) ? copy : null, offersAgain ? again : null);
    return h("footer", { class: "message-foot" }, versionSwitch(this.chat, node.id, this.context.versions), actions, facts);
  }

  #facts(node) {
    const facts = [];
    const speed = tokensPerSecond(node);
    if (speed !== null) facts.push(t("speed", { n: number(speed, { maximumFractionDigits: speed < 10 ? 1 : 0 }) }));
    if (node.usage) facts.push(t("tokens", { n: number(node.usage.completion_tokens) }));
    const used = contextUsed(node);
    if (used !== null && this.context.maxLength) facts.push(t("contextLeft", { n: number(Math.max(0, this.context.maxLength - used)) }));
    return facts;
  }
}

class TurnView {
  #tools = new Map();

  constructor(answer) {
    this.answer = answer;
    this.thought = new ThoughtView();
    this.prose = new MarkdownView({ mark: (index) => this.#place(index), time: (node) => this.#time(node) });
    this.gallery = h("div", { class: "gallery" });
    this.element = h("div", { class: "turn" });
  }

  update(turn, isLast, isRunning) {
    const { context } = this.answer;
    this.thought.update(turn, isRunning && isLast);
    this.places = isLast ? context.places : [];
    const { text, kinds } = withMarks(turn.content, this.places);
    this.kinds = kinds;
    const options = context.duration === null ? {} : { duration: context.duration };
    // A list that is still being written is drawn anew when a shape is added to it, not at every letter.
    const shown = this.places.map((place, at) => [kinds[at], place.final, place.marks, place.isCut || [place.begin, place.end]]);
    const key = JSON.stringify([shown, context.pictures, options]);
    this.prose.update(text, options, key);
    const views = turn.calls.map((call, at) => {
      if (!this.#tools.has(at)) this.#tools.set(at, new ToolView());
      const mark = context.marks.find((item) => item.kind === "zoom" && item.call === call.id) ?? null;
      this.#tools.get(at).update(call, mark, context);
      return this.#tools.get(at).element;
    });
    this.#updateGallery(isLast, key);
    setChildren(this.element, [
      turn.reasoning ? this.thought.element : null,
      turn.content ? this.prose.element : null,
      isLast && this.gallery.childNodes.length ? this.gallery : null,
      ...views,
    ]);
  }

  // Boxes in a line stand there as chips, and the picture they are in below the text.
  #updateGallery(isLast, key) {
    if (key === this.galleryKey) return;
    this.galleryKey = key;
    const marks = isLast && this.#figurePlace() < 0 ? this.places.flatMap((place) => place.marks) : [];
    setChildren(this.gallery, this.#figures(marks));
  }

  // The one place at which a picture can stand in the text; -1 if there is none.
  #figurePlace() {
    const final = this.places.flatMap((place, at) => (place.final ? [at] : []));
    return final.length === 1 && this.kinds[final[0]] === "block" ? final[0] : -1;
  }

  #place(index) {
    const place = this.places[index];
    if (place === undefined) return null;
    const text = this.answer.node.turns[this.answer.node.turns.length - 1].content.slice(place.begin, place.end);
    if (index === this.#figurePlace()) {
      const figures = this.#figures(place.marks);
      if (figures.length) return h("figure", { class: "answer-figure" }, figures, rawJson(text));
    }
    if (place.final && place.marks.length) return h("span", { class: "chips" }, place.marks.map(chip));
    return rawJson(text);
  }

  #figures(marks) {
    const { context } = this.answer;
    const pictures = [...new Set(marks.map((mark) => mark.picture))].filter((index) => context.picture(index)?.width);
    return pictures.map((index) => {
      const record = context.picture(index);
      const own = marks.filter((mark) => mark.picture === index);
      const inside = drawable(own, index);
      const caption = t("boxes", { n: own.length, picture: index + 1 });
      const open = () => context.open([{ record, marks: inside, alt: caption, title: t("viewer", { n: index + 1 }) }], 0);
      const outside = own.length - inside.length;
      return h(
        "figure",
        { class: "boxes" },
        stage(record, { alt: caption, marks: inside, onOpen: open, openLabel: t("openPicture", { n: index + 1 }) }),
        h("figcaption", {}, legend(own), outside ? h("p", { class: "tool-note" }, t("notDrawn", { n: outside })) : null),
      );
    });
  }

  #time({ seconds, text }) {
    const seek = () => this.answer.context.seek(seconds);
    return h("button", { type: "button", class: "time", title: t("seek", { time: clock(seconds) }), on: { click: seek } }, text);
  }
}

function rawJson(text) {
  return h("details", { class: "raw" }, h("summary", {}, t("boxJson")), h("pre", { tabindex: "0" }, h("code", {}, text)));
}
