import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError } from "../web/api.js";
import { Uploads } from "../web/uploads.js";

const record = (id, size = 3) => ({ id, conversation: "c", name: `${id}.png`, blob: { size } });

class FakeStore {
  kept = new Map();
  get = async (_store, id) => this.kept.get(id);
  put = async (_store, value) => this.kept.set(value.id, value);
  removeOne = async (_store, id) => this.kept.delete(id);
  ofConversation = async (_store, conversation) => [...this.kept.values()].filter((value) => value.conversation === conversation);
}

/** Uploads stay under way until `end` is called with a name or an error. */
class FakeApi {
  sent = [];
  deleted = [];
  expires = null;
  upload = (_blob, name, { signal, onProgress }) =>
    new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      const end = (file) => (file instanceof Error ? reject(file) : resolve({ file, expires: this.expires }));
      this.sent.push({ name, onProgress, end });
    });
  deleteFile = async (file) => this.deleted.push(file);
}

function fresh(options = {}) {
  const [store, api] = [new FakeStore(), new FakeApi()];
  return { store, api, uploads: new Uploads(store, api, options) };
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 0));

test("a medium is sent once, however many ask for it, and not again after a reload", async () => {
  const { store, api, uploads } = fresh();
  const names = Promise.all([uploads.fileOf(record("a")), uploads.fileOf(record("a"))]);
  await soon();
  assert.equal(api.sent.length, 1);
  api.sent[0].end("file-1");
  assert.deepEqual(await names, ["file-1", "file-1"]);
  assert.equal(await uploads.fileOf(record("a")), "file-1");
  assert.equal(await new Uploads(store, api).fileOf(record("a")), "file-1");
  assert.equal(api.sent.length, 1);
});

test("what the server no longer has is sent again", async () => {
  const { store, api, uploads } = fresh();
  store.kept.set("old", { id: "old", conversation: "c", file: "file-0", expires: Date.now() + 1000 });
  store.kept.set("lost", { id: "lost", conversation: "c", file: "file-0", expires: null });
  assert.equal(await uploads.fileOf(record("lost")), "file-0");
  await uploads.lost(["lost"]);
  const names = Promise.all([uploads.fileOf(record("old")), uploads.fileOf(record("lost"))]);
  await soon();
  api.sent.forEach(({ end }, at) => end(`file-${at + 1}`));
  assert.deepEqual(await names, ["file-1", "file-2"]);
  assert.deepEqual(api.deleted, []);
});

test("progress is told while something is sent, and only then", async () => {
  const told = [];
  const { api, uploads } = fresh({ onProgress: (id) => told.push([id, uploads.progress(id)]) });
  assert.equal(uploads.progress("a"), null);
  const name = uploads.fileOf(record("a"));
  await soon();
  api.sent[0].onProgress(0.5);
  api.sent[0].end("file-1");
  await name;
  assert.deepEqual(told, [["a", 0], ["a", 0.5], ["a", null]]);
});

test("two are sent at a time, and one that fails makes room", async () => {
  const { api, uploads } = fresh();
  const results = Promise.allSettled(["a", "b", "c", "d"].map((id) => uploads.fileOf(record(id))));
  await soon();
  assert.deepEqual(api.sent.map(({ name }) => name), ["a.png", "b.png"]);
  api.sent[0].end(new ApiError("unreachable", ""));
  await soon();
  assert.deepEqual(api.sent.map(({ name }) => name), ["a.png", "b.png", "c.png"]);
  for (let at = 1; at < 4; at += 1) {
    api.sent[at].end(`file-${at}`);
    await soon();
  }
  assert.deepEqual((await results).map(({ status }) => status), ["rejected", "fulfilled", "fulfilled", "fulfilled"]);
});

test("what failed is tried again when it is asked for again", async () => {
  const { api, uploads } = fresh();
  const first = uploads.fileOf(record("a"));
  await soon();
  api.sent[0].end(new ApiError("busy", ""));
  await assert.rejects(first, { kind: "busy" });
  const second = uploads.fileOf(record("a"));
  await soon();
  api.sent[1].end("file-1");
  assert.equal(await second, "file-1");
});

test("who stops waiting does not stop what others wait for", async () => {
  const { api, uploads } = fresh();
  const controller = new AbortController();
  const [stopped, other] = [uploads.fileOf(record("a"), controller.signal), uploads.fileOf(record("a"))];
  await soon();
  controller.abort();
  await assert.rejects(stopped, { name: "AbortError" });
  api.sent[0].end("file-1");
  assert.equal(await other, "file-1");
});

test("what is larger than the server takes is not sent", async () => {
  const { api, uploads } = fresh({ limit: () => 2 ** 20 });
  await assert.rejects(uploads.fileOf(record("a", 2 ** 20 + 1)), { kind: "too_large", param: "2/1", message: "a.png" });
  assert.deepEqual(api.sent, []);
});

test("what is taken away is deleted there, or not sent any further", async () => {
  const { store, api, uploads } = fresh();
  const name = uploads.fileOf(record("a"));
  await soon();
  await uploads.remove(["a"]);
  await assert.rejects(name, { name: "AbortError" });
  store.kept.set("b", { id: "b", conversation: "c", file: "file-b", expires: null });
  store.kept.set("x", { id: "x", conversation: "other", file: "file-x", expires: null });
  await uploads.removeOf("c");
  assert.deepEqual(api.deleted, ["file-b"]);
  assert.deepEqual([...store.kept.keys()], ["x"]);
});
