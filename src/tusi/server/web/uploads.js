// Puts each picture and video on the server once; messages then only name it. Under which name it lies there is kept
// beside the medium, so that a reload does not send it again. The server may forget it: after a day, when it is started
// anew, or when somebody deletes it. Then it says so to whoever names the file, and it is uploaded again.

import { ApiError } from "./api.js";

const LIFETIME = 24 * 3600; // seconds that a file lies there: who goes on with an older conversation sends it once more
const MARGIN = 10 * 60_000; // milliseconds before its end from which a file counts as gone
const AT_ONCE = 2; // browsers open six connections to a server, and answers need some

export class Uploads {
  #names = new Map(); // medium: {id, conversation, file, expires}
  #running = new Map(); // medium: {promise, controller, progress}
  #free = AT_ONCE;
  #waiting = [];

  /** limit(): bytes that a file may have, null if unknown. onProgress(id): `progress` of a medium is another one. */
  constructor(store, api, { limit = () => null, onProgress = () => {} } = {}) {
    Object.assign(this, { store, api, limit, onProgress });
  }

  /** The name of a medium on the server, where it is put if it is not there. Raises ApiError; the signal ends the wait. */
  async fileOf(record, signal) {
    const known = await this.#known(record.id);
    return known ?? until(this.#start(record), signal);
  }

  /** How much of a medium has been sent, 0 to 1; null if it is not being sent. */
  progress(id) {
    return this.#running.get(id)?.progress ?? null;
  }

  /** The server does not know these any more. */
  async lost(ids) {
    for (const id of ids) {
      this.#names.delete(id);
      await this.store.removeOne("uploads", id);
    }
  }

  /** Nobody needs these any more: the server is told, if it can be. */
  async remove(ids) {
    for (const id of ids) {
      this.#running.get(id)?.controller.abort();
      const { file } = (await this.#entry(id)) ?? {};
      await this.lost([id]);
      if (file !== undefined) this.api.deleteFile(file).catch(() => {}); // it goes by itself in a day
    }
  }

  /** The same for all of a conversation. */
  async removeOf(conversation) {
    const kept = await this.store.ofConversation("uploads", conversation);
    const own = [...this.#names.values()].filter((entry) => entry.conversation === conversation);
    await this.remove(new Set([...kept, ...own].map(({ id }) => id)));
  }

  async #known(id) {
    const entry = await this.#entry(id);
    return entry && (entry.expires === null || entry.expires - MARGIN > Date.now()) ? entry.file : null;
  }

  async #entry(id) {
    return this.#names.get(id) ?? this.store.get("uploads", id);
  }

  #start(record) {
    const running = this.#running.get(record.id);
    if (running) return running.promise;
    const run = { controller: new AbortController(), progress: 0 };
    this.#running.set(record.id, run);
    run.promise = this.#inTurn(() => this.#send(record, run)).finally(() => {
      this.#running.delete(record.id);
      this.onProgress(record.id);
    });
    this.onProgress(record.id);
    return run.promise;
  }

  async #send(record, run) {
    const { blob, name, id, conversation } = record;
    const { signal } = run.controller;
    signal.throwIfAborted();
    checkSize(blob.size, this.limit(), name);
    const onProgress = (progress) => {
      run.progress = progress;
      this.onProgress(id);
    };
    const { file, expires } = await this.api.upload(blob, name, { lifetime: LIFETIME, signal, onProgress });
    const entry = { id, conversation, file, expires };
    this.#names.set(id, entry);
    await this.store.put("uploads", entry);
    return file;
  }

  async #inTurn(work) {
    if (this.#free === 0) await new Promise((resolve) => this.#waiting.push(resolve));
    else this.#free -= 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/** Raises ApiError for more bytes than the server takes, if it has said how many it takes. */
export function checkSize(size, limit, name = "") {
  if (!limit || size <= limit) return;
  throw new ApiError("too_large", name, { param: `${Math.ceil(size / 2 ** 20)}/${Math.floor(limit / 2 ** 20)}` });
}

// What a promise comes to, unless the signal is first: others may wait for the same promise.
function until(promise, signal) {
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    if (signal?.aborted) reject(signal.reason);
    promise.then(resolve, reject);
  });
}
