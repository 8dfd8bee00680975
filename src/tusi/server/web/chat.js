// The conversations: opens, branches and keeps them, and runs the answers that are under way. Knows no views: it tells
// what has changed to those who listen, and they look.
//
// Events: list (the conversations), open (another one is shown), path (its messages), node (id: one of them), say (event,
// answer: for people who cannot see it), upload (id: how much of a medium has been sent), unsent (record, error).

import { Api, describe } from "./api.js";
import { endAnswer, isEmpty, newAnswer, takeChunk } from "./answer.js";
import { emptyConversation, opened, tab, titleOf } from "./conversations.js";
import { newId } from "./ids.js";
import { fromDataUrl, withSize } from "./media.js";
import { settings } from "./settings.js";
import { checkSize, Uploads } from "./uploads.js";
import { mediaOf, requestBody } from "./wire.js";

const SAVE_EVERY = 300; // milliseconds, while an answer comes
const MAX_BUSY = 8;
const DELETED_FOR = 60_000;

export class Chat {
  conversations = new Map();
  current = null; // {conversation, tree, media: Map}
  description = null; // what the server said of itself
  #open = new Map();
  #running = new Map();
  #listeners = new Map();
  #channel = "BroadcastChannel" in window ? new BroadcastChannel("tusi") : null;

  constructor(store, api = new Api()) {
    this.store = store;
    this.api = api;
    const limit = () => this.description?.facts.max_file_bytes ?? null;
    this.uploads = new Uploads(store, api, { limit, onProgress: (id) => this.emit("upload", id) });
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#hear(data);
  }

  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }

  emit(event, ...values) {
    for (const listener of this.#listeners.get(event) ?? []) listener(...values);
  }

  // ---- conversations

  async start(wanted) {
    for (const conversation of await this.store.all("conversations")) {
      this.conversations.set(conversation.id, conversation);
      // The page was left before a deletion was final; another tab may still offer the way back.
      if (conversation.deleted && Date.now() - conversation.deleted > DELETED_FOR) await this.forget(conversation.id);
    }
    await this.openConversation(wanted ?? this.sorted()[0]?.id ?? newId());
    this.emit("list");
  }

  sorted() {
    return [...this.conversations.values()].filter((c) => !c.deleted).sort((a, b) => b.updated - a.updated);
  }

  /** Shows a conversation; an id that is not known yet is a new one, which is kept once something is in it. */
  async openConversation(id) {
    this.current = await this.#load(id);
    this.emit("open");
    return this.current;
  }

  async newConversation() {
    const blank = this.current !== null && !this.conversations.has(this.current.conversation.id);
    const id = blank ? this.current.conversation.id : newId();
    // Nothing is kept under a new id: whoever types at once must not be overtaken by a look into the store.
    if (!blank) this.#open.set(id, opened(emptyConversation(id), [], []));
    await this.openConversation(id);
  }

  async rename(id, title) {
    const { conversation } = await this.#load(id);
    Object.assign(conversation, { title: title.trim() || conversation.title, isNamed: true });
    await this.#keepConversation(conversation);
  }

  /** Hides it; `forget` makes that final, `restore` takes it back. */
  async hide(id, deleted = true) {
    const { conversation } = await this.#load(id);
    for (const node of this.#open.get(id).tree.nodes) if (deleted) this.stop(node.id);
    conversation.deleted = deleted && Date.now();
    await this.#keepConversation(conversation);
    if (deleted && this.current.conversation.id === id) await this.openConversation(this.sorted()[0]?.id ?? newId());
  }

  async forget(id) {
    if (!this.conversations.get(id)?.deleted) return;
    this.conversations.delete(id);
    this.#open.delete(id);
    await this.uploads.removeOf(id);
    await this.store.remove(id);
  }

  /** Takes in a conversation that was exported. */
  async takeIn({ conversation, nodes, media }) {
    for (const record of media) await this.store.put("media", record);
    for (const node of nodes) await this.store.put("nodes", node);
    await this.#keepConversation(conversation);
    await this.openConversation(conversation.id);
  }

  // ---- what is about to be sent

  async attach(record) {
    const { conversation, media } = await this.#load(record.conversation);
    media.set(record.id, record);
    conversation.draftMedia = [...conversation.draftMedia, record.id];
    this.#uploadAhead(record);
    await this.store.put("media", record);
    await this.#keepConversation(conversation);
  }

  async detach(id) {
    const { conversation } = this.current;
    conversation.draftMedia = conversation.draftMedia.filter((other) => other !== id);
    await this.#keepConversation(conversation);
    await this.store.removeOne("media", id);
    await this.uploads.remove([id]);
  }

  /** Keeps a record that is not attached to what is about to be sent (a message that is edited gets it). */
  async keepMedium(record) {
    this.current.media.set(record.id, record);
    this.#uploadAhead(record);
    await this.store.put("media", record);
  }

  // While the message is still being written. What goes wrong is tried again with the message, and told then.
  #uploadAhead(record) {
    this.uploads.fileOf(record).catch((error) => this.emit("unsent", record, error));
  }

  // ---- asking

  /** Adds a message and asks. Resolves once the message is kept; the answer then comes by itself. */
  async send(text, media, parent = this.#leaf()) {
    const { conversation, tree } = this.current;
    const user = { id: newId(), conversation: conversation.id, parent, role: "user", created: Date.now(), text, media };
    tree.add(user);
    conversation.draftMedia = conversation.draftMedia.filter((id) => !media.includes(id));
    if (!conversation.title && !conversation.isNamed) conversation.title = titleOf(text, this.current.media.get(media[0]));
    const kept = this.#keep(user);
    this.ask(user.id);
    await kept;
  }

  /** A changed message is a branch beside the old one. */
  async edit(id, text, media) {
    await this.send(text, media, this.current.tree.get(id).parent);
  }

  /** Another answer to the same message, on a branch of its own; an answer without a word is replaced. */
  regenerate(id) {
    const node = this.current.tree.get(id);
    if (node.role === "assistant" && isEmpty(node) && !this.isRunning(id)) {
      this.#run(this.current, Object.assign(node, { ...newAnswer({ ...node, now: Date.now() }), created: node.created }));
      return;
    }
    this.ask(node.parent);
  }

  ask(parent) {
    const { conversation } = this.current;
    const model = this.model();
    const answer = newAnswer({ id: newId(), conversation: conversation.id, parent, model, now: Date.now() });
    this.current.tree.add(answer);
    this.#run(this.current, answer);
    this.emit("path");
  }

  stop(id = null) {
    const ids = id === null ? this.current.tree.path().map((node) => node.id) : [id];
    for (const one of ids) this.#running.get(one)?.controller.abort();
  }

  /** Does not wait any longer for a server that was busy. */
  hurry(id) {
    this.#running.get(id)?.hurry();
  }

  /** What an answer waits for: {name, progress} of the medium that is being sent; null if it is none. */
  sending(id) {
    const record = this.#running.get(id)?.sending ?? null;
    const progress = record && this.uploads.progress(record.id);
    return progress === null ? null : { name: record.name, progress };
  }

  isRunning(id = null) {
    if (id !== null) return this.#running.has(id);
    return this.current !== null && this.current.tree.path().some((node) => this.#running.has(node.id));
  }

  async select(id) {
    const { conversation, tree } = this.current;
    tree.select(id);
    conversation.selected = tree.selected;
    this.emit("path");
    await this.#keepConversation(conversation);
  }

  model() {
    const names = this.description?.models.map((card) => card.id) ?? [];
    return names.includes(settings().model) ? settings().model : (names[0] ?? null);
  }

  offered() {
    const { tools } = settings();
    return (this.description?.tools ?? []).map((tool) => tool.id).filter((name) => tools[name] !== false);
  }

  // ---- an answer under way

  async #run(open, answer) {
    const controller = new AbortController();
    const run = { controller, hurry: () => {}, sending: null };
    this.#running.set(answer.id, run);
    this.emit("node", answer.id);
    const saver = this.#saver(answer);
    try {
      await this.#patiently(open, answer, run, saver);
      endAnswer(answer, "done", Date.now());
    } catch (error) {
      if (error.name === "AbortError") endAnswer(answer, "stopped", Date.now());
      else endAnswer(answer, "error", Date.now(), describe(error));
    }
    this.#running.delete(answer.id);
    this.emit("say", answer.status, answer);
    this.emit("node", answer.id);
    await saver(true);
  }

  // A server that is busy is asked again after as long as it says, for a while.
  async #patiently(open, answer, run, saver) {
    const { signal } = run.controller;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#once(open, answer, run, saver);
      } catch (error) {
        if (error.kind !== "busy" || !isEmpty(answer) || attempt >= MAX_BUSY) throw error;
        const seconds = Math.min(error.retryAfter ?? 2 ** attempt, 60);
        answer.error = { ...describe(error), retryAt: Date.now() + seconds * 1000 };
        this.emit("node", answer.id);
        this.emit("say", "busy", answer);
        await pause(seconds * 1000, signal, run);
        answer.error = null;
      }
    }
  }

  async #once(open, answer, run, saver) {
    await saver(true); // before anything is asked: what was said is on disk
    if (this.description === null) await this.describe();
    const path = open.tree.path(answer.parent);
    try {
      await this.#stream(open, path, answer, run, saver);
    } catch (error) {
      if (error.code !== "file_not_found" || !isEmpty(answer)) throw error;
      await this.uploads.lost(mediaOf(path)); // the server was started anew, or has deleted them
      await this.#stream(open, path, answer, run, saver);
    }
  }

  async #stream(open, path, answer, run, saver) {
    const { signal } = run.controller;
    const fileOf = async (id) => {
      run.sending = await this.#medium(open, id);
      return run.sending ? this.uploads.fileOf(run.sending, signal) : null;
    };
    const body = await requestBody(path, { model: this.model(), settings: settings(), offered: this.offered(), fileOf });
    run.sending = null;
    checkSize(new Blob([JSON.stringify(body)]).size, this.description.facts.max_body_bytes);
    const keepMedia = (url) => this.#keepCrop(open, answer.conversation, url);
    for await (const chunk of this.api.chat(body, signal)) {
      for (const event of takeChunk(answer, chunk, Date.now(), keepMedia)) this.emit("say", event, answer);
      this.emit("node", answer.id);
      saver();
    }
    signal.throwIfAborted();
  }

  async describe() {
    this.description = await this.api.describe();
    this.emit("server");
  }

  // Writes now and then while an answer comes; `true` writes at once.
  #saver(answer) {
    let timer = null;
    const write = () => {
      timer = null;
      return this.#keep(answer);
    };
    return async (now = false) => {
      if (!now) {
        timer ??= setTimeout(write, SAVE_EVERY);
        return;
      }
      clearTimeout(timer);
      await write();
    };
  }

  #keepCrop(open, conversation, url) {
    const record = fromDataUrl(url, conversation);
    if (record === null) return null;
    open.media.set(record.id, record);
    withSize(record).then((sized) => {
      Object.assign(record, sized);
      this.emit("medium", record.id);
      return this.store.put("media", record);
    });
    return record.id;
  }

  async #medium(open, id) {
    return open.media.get(id) ?? this.store.get("media", id);
  }

  // ---- keeping

  async #load(id) {
    const known = this.#open.get(id);
    if (known) return known;
    const conversation = this.conversations.get(id) ?? emptyConversation(id);
    const [nodes, media] = await Promise.all(["nodes", "media"].map((name) => this.store.ofConversation(name, id)));
    for (const node of nodes) this.#wake(node);
    const open = opened(conversation, nodes, media);
    this.#open.set(id, open);
    return open;
  }

  // An answer that was under way when the page was left is not any more; unless another tab still runs it.
  #wake(node) {
    if (node.role !== "assistant" || !["waiting", "streaming"].includes(node.status)) return;
    if (node.tab !== undefined && node.tab !== tab() && Date.now() - node.saved < 5000) return;
    endAnswer(node, "interrupted", node.saved ?? node.created);
  }

  async #keep(node) {
    const { conversation, tree } = await this.#load(node.conversation);
    conversation.selected = tree.selected;
    conversation.updated = Date.now();
    Object.assign(node, { tab: tab(), saved: Date.now() });
    await this.store.put("nodes", structuredClone(node));
    await this.#keepConversation(conversation);
    this.#channel?.postMessage({ node });
  }

  async #keepConversation(conversation) {
    const isNew = !this.conversations.has(conversation.id);
    if (isNew) navigator.storage?.persist?.().catch(() => {}); // asks the browser not to clear it away
    this.conversations.set(conversation.id, conversation);
    this.emit("list");
    await this.store.put("conversations", structuredClone(conversation));
    this.#channel?.postMessage({ conversation });
  }

  // Another tab has changed something.
  #hear({ node, conversation }) {
    if (conversation) {
      const open = this.#open.get(conversation.id);
      // Which branch is shown and what is about to be sent are each tab's own.
      if (open) Object.assign(open.conversation, { title: conversation.title, deleted: conversation.deleted });
      this.conversations.set(conversation.id, open?.conversation ?? conversation);
      this.emit("list");
    }
    const open = node && this.#open.get(node.conversation);
    if (!open || this.#running.has(node.id)) return;
    const isNew = open.tree.get(node.id) === undefined;
    const { selected } = open.tree;
    open.tree.update(node);
    if (isNew) open.tree.selected = { ...open.tree.selected, ...selected };
    if (open === this.current) this.emit(isNew ? "path" : "node", node.id);
  }

  #leaf() {
    const path = this.current.tree.path();
    return path.length ? path[path.length - 1].id : null;
  }
}

// Waits; run.hurry ends it early, the signal with an error.
function pause(milliseconds, signal, run) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    run.hurry = resolve;
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
    signal.throwIfAborted?.();
  });
}
