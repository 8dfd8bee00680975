// A thought: open while it comes, folded once it has ended, with how long it took. A person who opened or folded it
// has the last word.

import { h } from "./dom.js";
import { duration, t } from "./i18n.js";
import { MarkdownView } from "./render.js";

export class ThoughtView {
  #isTheirs = false;
  #wasThinking = false;

  constructor() {
    this.label = h("span", { class: "thought-label" });
    this.prose = new MarkdownView();
    this.scroll = h("div", { class: "thought-scroll", tabindex: "0", role: "group", "aria-label": t("thought") }, this.prose.element);
    const summary = h("summary", {}, h("span", { class: "pulse" }), this.label);
    summary.addEventListener("click", () => (this.#isTheirs = true));
    this.element = h("details", { class: "thought" }, summary, this.scroll);
  }

  /** isOpenTurn: the turn is still being written. */
  update(turn, isOpenTurn) {
    const isThinking = isOpenTurn && turn.thinkingTook === null && turn.thinkingSince !== null;
    const took = turn.thinkingTook ?? (turn.thinkingSince === null ? 0 : Date.now() - turn.thinkingSince);
    this.label.textContent = isThinking ? t("thinkingFor", { time: duration(took) }) : took >= 100 ? t("thoughtFor", { time: duration(took) }) : t("thought");
    this.element.classList.toggle("is-thinking", isThinking);
    if (isThinking !== this.#wasThinking && !this.#isTheirs) this.element.open = isThinking;
    this.#wasThinking = isThinking;
    const atEnd = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < 40;
    this.prose.update(turn.reasoning);
    if (isThinking && atEnd) this.scroll.scrollTop = this.scroll.scrollHeight;
  }
}
