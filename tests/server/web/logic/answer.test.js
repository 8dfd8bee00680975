import assert from "node:assert/strict";
import { test } from "node:test";
import { answerText, contextUsed, endAnswer, isEmpty, newAnswer, takeChunk, tokensPerSecond } from "../web/answer.js";
import { mediaOf, picturesOf, requestBody, toMessages } from "../web/wire.js";

const fresh = () => newAnswer({ id: "a", conversation: "c", parent: "u", model: "m", now: 0 });
const delta = (says, more = {}) => ({ choices: [{ index: 0, delta: says, finish_reason: null, ...more }] });
const step = (value) => ({ ...delta({}), step: value });
const CALL = { id: "call_1", name: "image_zoom_in_tool", arguments: '{"bbox_2d": [1, 2, 3, 4]}' };
const SAID = { role: "assistant", content: "Let me look.", reasoning: "Small.", tool_calls: [{ id: "call_1", type: "function", function: {} }] };

function zoomed() {
  const answer = fresh();
  const kept = [];
  const events = [];
  let now = 0;
  const chunks = [
    step({ type: "turn", turn: 0 }),
    delta({ role: "assistant", reasoning: "Sma", reasoning_content: "Sma" }),
    delta({ reasoning: "ll." }),
    delta({ content: "Let me look." }),
    step({ type: "turn_end", turn: 0, message: SAID, usage: { prompt_tokens: 10, completion_tokens: 5 } }),
    step({ type: "tool_call", turn: 0, call: CALL, origin: { img_idx: 0, bbox_2d: [1, 2, 3, 4] } }),
    step({
      type: "tool_result", turn: 0, call: CALL, origin: { img_idx: 0, bbox_2d: [1, 2, 3, 4] }, is_error: false,
      message: { role: "tool", tool_call_id: "call_1", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,AA" } }] },
    }),
    step({ type: "turn", turn: 1 }),
    delta({ reasoning: "I see." }),
    delta({ content: "\n\nA cat." }),
    step({ type: "turn_end", turn: 1, message: { role: "assistant", content: "A cat.", reasoning: "I see." }, usage: { prompt_tokens: 40, completion_tokens: 9 } }),
    delta({}, { finish_reason: "stop", thinking_truncated: false }),
    { choices: [], usage: { prompt_tokens: 50, completion_tokens: 14 } },
  ];
  for (const chunk of chunks) {
    now += 100;
    events.push(...takeChunk(answer, chunk, now, (url) => (kept.push(url), `m${kept.length}`)));
  }
  endAnswer(answer, "done", now);
  return { answer, kept, events };
}

test("turns, thoughts, calls and results come to stand in their places", () => {
  const { answer, kept, events } = zoomed();
  assert.deepEqual(answer.turns.map((turn) => [turn.reasoning, turn.content]), [["Small.", "Let me look."], ["I see.", "A cat."]]);
  const [call] = answer.turns[0].calls;
  assert.deepEqual([call.status, call.took, call.result], ["done", 100, [{ type: "media", media: "m1" }]]);
  assert.deepEqual(kept, ["data:image/png;base64,AA"]);
  assert.deepEqual(events, ["turn", "thinking", "writing", "call", "result", "turn", "thinking", "writing", "finish"]);
  assert.equal(answerText(answer), "A cat.");
  assert.equal(answer.turns[0].thinkingTook, 200);
  assert.equal(contextUsed(answer), 49);
  assert.ok(tokensPerSecond(answer) > 0);
});

test("a speed is counted in chunks only while they can be tokens", () => {
  const after = (pause, usage) => {
    const answer = fresh();
    for (let at = 0; at < 10; at += 1) takeChunk(answer, delta({ content: "a" }), at * pause, () => null);
    if (usage) takeChunk(answer, { choices: [], usage }, 10 * pause, () => null);
    return tokensPerSecond(answer);
  };
  assert.equal(after(100), 10);
  assert.equal(after(10), null);
  assert.equal(after(10, { prompt_tokens: 1, completion_tokens: 91 }), 1000);
});

test("what is sent back is what the model saw, crops included", async () => {
  const { answer } = zoomed();
  const user = { id: "u", role: "user", text: "What?", media: ["p"] };
  assert.deepEqual(mediaOf([user, answer]), ["p", "m1"]);
  assert.deepEqual(await toMessages([user, answer], " ", async (id) => `file-${id}`), [
    { role: "user", content: [{ type: "file", file: { file_id: "file-p" } }, { type: "text", text: "What?" }] },
    SAID,
    { role: "tool", tool_call_id: "call_1", content: [{ type: "file", file: { file_id: "file-m1" } }] },
    { role: "assistant", content: "A cat.", reasoning: "I see." },
  ]);
});

test("a call that was interrupted is sent back with a result that says so", async () => {
  const answer = fresh();
  for (const value of [{ type: "turn" }, { type: "turn_end", message: SAID }, { type: "tool_call", call: CALL, origin: null }]) {
    takeChunk(answer, step(value), 1, () => null);
  }
  endAnswer(answer, "stopped", 2);
  assert.equal(answer.turns[0].calls[0].status, "unanswered");
  const [, tool] = await toMessages([answer], "", async () => null);
  assert.equal(tool.tool_call_id, "call_1");
  assert.match(tool.content, /interrupted/);
});

test("an answer without steps has one turn, and a stopped one keeps what had come", async () => {
  const answer = fresh();
  assert.ok(isEmpty(answer));
  takeChunk(answer, delta({ reasoning_content: "Hm." }), 1, () => null);
  takeChunk(answer, delta({ content: "\n\nHal" }), 2, () => null);
  endAnswer(answer, "stopped", 3);
  assert.ok(!isEmpty(answer));
  assert.equal(answer.turns.length, 1);
  assert.deepEqual(await toMessages([answer], "Be brief.", async () => null), [
    { role: "system", content: "Be brief." },
    { role: "assistant", content: "\n\nHal", reasoning: "Hm." },
  ]);
});

test("a thought that a limit cut is known as such", () => {
  const answer = fresh();
  takeChunk(answer, delta({ reasoning: "Hm" }), 1, () => null);
  takeChunk(answer, delta({}, { finish_reason: "length", thinking_truncated: true }), 2, () => null);
  assert.deepEqual([answer.finish, answer.truncated, answer.turns[0].thinkingTook], ["length", true, 1]);
});

test("steps of a newer server do no harm", () => {
  const answer = fresh();
  assert.deepEqual(takeChunk(answer, step({ type: "dream" }), 1, () => null), []);
});

test("the body says what was set and nothing else", async () => {
  const settings = { system: "", temperature: null, maxTokens: null, thinking: "on", budget: 9 };
  const path = [{ id: "u", role: "user", text: "Hi", media: [] }];
  const plain = await requestBody(path, { model: "m", settings, fileOf: async () => null });
  assert.deepEqual(plain, { model: "m", messages: [{ role: "user", content: "Hi" }], stream: true, stream_options: { include_usage: true } });
  const set = { ...settings, temperature: 0, maxTokens: 5, thinking: "budget" };
  const body = await requestBody(path, { model: "m", settings: set, offered: ["calculator"], fileOf: async () => null });
  assert.deepEqual([body.temperature, body.max_tokens, body.thinking_budget], [0, 5, 9]);
  assert.deepEqual(body.tools, [{ type: "builtin", name: "calculator" }]);
});

test("pictures are counted among those that people sent", () => {
  const path = [
    { id: "u1", role: "user", media: ["a", "v"] },
    { id: "a1", role: "assistant", turns: [] },
    { id: "u2", role: "user", media: ["b"] },
  ];
  const kinds = (id) => (id === "v" ? "video" : "image");
  assert.deepEqual(picturesOf(path, kinds), [{ media: "a", node: "u1" }, { media: "b", node: "u2" }]);
});
