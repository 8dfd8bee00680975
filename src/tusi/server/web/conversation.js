// The messages of the conversation that is shown. Keeps one view a message, redraws those that changed once a frame, and
// stays at the end while an answer comes, unless somebody scrolled up.

import { h, setChildren } from "./dom.js";
import { t } from "./i18n.js";
import { drawable, marksOf } from "./marks.js";
import { openViewer } from "./viewer.js";
import { AnswerView } from "./view_answer.js";
import { UserView } from "./view_user.js";
import { picturesOf } from "./wire.js";

const TICK = 250; // milliseconds: clocks and countdowns of what runs

export class ConversationView {
  #views = new Map();
  #marks = new WeakMap(); // of answers that are complete: {key, found}
  #dirty = new Set();
  #frame = null;
  #atEnd = true;

  constructor(chat, hero) {
    Object.assign(this, { chat, hero });
    this.list = h("div", { class: "messages" });
    this.latest = h("button", { type: "button", class: "button to-latest", hidden: true }, t("toLatest"));
    this.latest.addEventListener("click", () => this.toEnd());
    this.element = h("div", { class: "scroll", tabindex: "-1" }, this.list);
    this.element.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    new ResizeObserver(() => this.#stay()).observe(this.list); // a picture that loads late moves the end
    chat.on("open", () => this.#open());
    chat.on("path", () => this.#redraw());
    chat.on("server", () => this.#redraw());
    chat.on("medium", () => this.#redraw());
    chat.on("node", (id) => this.#touch(id));
    setInterval(() => this.#tick(), TICK);
  }

  /** Makes all views anew: the language has changed. */
  renew() {
    this.#views.clear();
    this.latest.textContent = t("toLatest");
    this.#redraw();
  }

  /** Opens the form of the last message of the person. */
  editLast() {
    const node = this.chat.current.tree.path().findLast((item) => item.role === "user");
    if (node) this.#views.get(node.id)?.edit();
  }

  toEnd() {
    this.#atEnd = true;
    this.element.scrollTop = this.element.scrollHeight;
  }

  #open() {
    this.#views.clear();
    this.#atEnd = true;
    this.#redraw();
    this.toEnd();
  }

  #tick() {
    for (const node of this.chat.current?.tree.path() ?? []) if (this.chat.isRunning(node.id)) this.#touch(node.id);
  }

  #touch(id) {
    this.#dirty.add(id);
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      const path = this.chat.current.tree.path();
      if (path.some((node) => this.#dirty.has(node.id))) this.#update(path);
      this.#dirty.clear();
    });
  }

  #redraw() {
    if (this.chat.current === null) return; // the server may answer before the browser's database does
    const path = this.chat.current.tree.path();
    this.#update(path);
    setChildren(this.list, path.length ? path.map((node) => this.#views.get(node.id).element) : [this.hero()]);
    this.#stay();
  }

  // Every message is asked to look the way it should now; each does nothing if it already does.
  #update(path) {
    const kinds = (id) => this.#record(id)?.kind;
    const pictures = picturesOf(path, kinds);
    const shown = new Map(); // picture: the marks of the last answer that has any in it
    const contexts = path.map((node, at) => (node.role === "assistant" ? this.#answerContext(path, at, pictures, shown) : null));
    let first = 0;
    path.forEach((node, at) => {
      const view = this.#view(node);
      view.update(node, contexts[at] ?? this.#userContext(node, first, pictures, shown));
      if (node.role === "user") first += node.media.filter((id) => kinds(id) === "image").length;
    });
  }

  #view(node) {
    if (!this.#views.has(node.id)) {
      this.#views.set(node.id, node.role === "user" ? new UserView(this.chat) : new AnswerView(this.chat));
    }
    return this.#views.get(node.id);
  }

  #record = (id) => this.chat.current.media.get(id);

  #userContext(node, firstPicture, pictures, shown) {
    const entry = (picture, index) => {
      const record = this.#record(picture.media);
      return { record, marks: shown.get(index) ?? [], alt: t("picture", { n: index + 1 }), title: t("viewer", { n: index + 1 }) };
    };
    return {
      record: this.#record,
      firstPicture,
      marks: (index) => shown.get(index) ?? [],
      versions: this.chat.current.tree.versions(node.id),
      open: (at) => openViewer(pictures.map(entry), at),
    };
  }

  #answerContext(path, at, allPictures, shown) {
    const node = path[at];
    const before = new Set(path.slice(0, at).map((item) => item.id));
    const pictures = allPictures.filter((picture) => before.has(picture.node));
    const newest = pictures[pictures.length - 1]?.node;
    const { marks, places } = this.#marksOf(node, pictures, Math.max(0, pictures.findIndex((picture) => picture.node === newest)));
    pictures.forEach((_picture, index) => {
      const own = drawable(marks, index);
      if (own.length) shown.set(index, own);
    });
    const video = this.#lastVideo(path.slice(0, at));
    return {
      record: this.#record,
      pictures: pictures.map((picture) => picture.media),
      picture: (index) => (pictures[index] ? this.#record(pictures[index].media) : undefined),
      marks,
      places,
      versions: this.chat.current.tree.versions(node.id),
      open: openViewer,
      duration: video ? (video.duration ?? 86_400) : null,
      seek: (seconds) => this.#seek(video.id, seconds),
      maxLength: this.chat.description?.models[0]?.max_model_len ?? null,
    };
  }

  // An answer that grows is looked through at every frame; the others need not be.
  #marksOf(node, pictures, latest) {
    if (this.chat.isRunning(node.id)) {
      this.#marks.delete(node);
      return marksOf(node, pictures, latest);
    }
    const key = `${node.status} ${pictures.length} ${latest}`;
    if (this.#marks.get(node)?.key !== key) this.#marks.set(node, { key, found: marksOf(node, pictures, latest) });
    return this.#marks.get(node).found;
  }

  #lastVideo(path) {
    const videos = path.flatMap((node) => (node.role === "user" ? node.media : [])).map(this.#record);
    return videos.findLast((record) => record?.kind === "video") ?? null;
  }

  #seek(id, seconds) {
    const video = this.list.querySelector(`video[data-medium="${CSS.escape(id)}"]`);
    if (video === null) return;
    video.pause();
    video.currentTime = seconds;
    video.scrollIntoView({ block: "nearest", behavior: "smooth" });
    video.focus({ preventScroll: true });
  }

  #noteScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < 80;
    this.latest.hidden = this.#atEnd;
  }

  #stay() {
    if (this.#atEnd) this.element.scrollTop = this.element.scrollHeight;
    else this.#noteScroll();
  }
}
