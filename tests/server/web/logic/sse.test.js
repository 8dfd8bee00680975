import assert from "node:assert/strict";
import { test } from "node:test";
import { readEvents, SseParser } from "../web/sse.js";

const STREAM = ': hello\n\ndata: {"a": 1}\n\nevent: x\r\ndata: 图\r\ndata: two\r\n\r\ndata:bare\rid: 7\r\rdata: [DONE]\n\ndata: never ended';
const EVENTS = [
  { event: "message", data: '{"a": 1}' },
  { event: "x", data: "图\ntwo" },
  { event: "message", data: "bare" },
  { event: "message", data: "[DONE]" },
];

test("events come whole however the text is cut", () => {
  for (let size = 1; size <= STREAM.length; size += 1) {
    const parser = new SseParser();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.push(STREAM.slice(at, at + size)));
    assert.deepEqual(events, EVENTS, `pieces of ${size}`);
  }
});

test("bytes are cut inside a character too", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let size = 1; size <= 7; size += 1) {
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const events = [];
    for await (const event of readEvents(body)) events.push(event);
    assert.deepEqual(events, EVENTS);
  }
});

test("whoever stops reading ends the stream", async () => {
  let isCancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => (isCancelled = true),
  });
  for await (const { data } of readEvents(body)) {
    assert.equal(data, "x");
    break;
  }
  assert.ok(isCancelled);
});
