// OpenAI's Node client against a server of tests/fixtures/scripted.py (SCRIPTED_URL) and one with a real, tiny model
// (TINY_URL), used as its documentation shows.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const scripted = new OpenAI({ baseURL: `${process.env.SCRIPTED_URL}/v1`, apiKey: "none", maxRetries: 0 });
const tiny = new OpenAI({ baseURL: `${process.env.TINY_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = "scripted";
const PNG = process.env.PICTURE; // a data URL
const say = (content) => [{ role: "user", content }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const tinyModel = async () => (await tiny.models.list()).data[0].id;

test("models", async () => {
  const [first] = (await scripted.models.list()).data;
  assert.equal(first.id, model);
  assert.equal((await scripted.models.retrieve(model)).id, model);
  await assert.rejects(scripted.models.retrieve("gpt-4"), OpenAI.NotFoundError);
});

test("chat: an answer, its thoughts and its usage", async () => {
  const completion = await scripted.chat.completions.create({ model, messages: say("hello") });
  const { message, finish_reason } = completion.choices[0];
  assert.equal(message.content, "You said 'hello' with 0 pictures.");
  assert.equal(message.reasoning, "Hm.");
  assert.equal(message.reasoning_content, "Hm.");
  assert.equal(finish_reason, "stop");
  assert.ok(completion.usage.completion_tokens_details.reasoning_tokens > 0);
});

for (const text of ["hello", "weather", "twice", "malformed", "json"]) {
  test(`chat: streamed equals unstreamed (${text})`, async () => {
    const ask = { model, messages: say(text), tools: [weather] };
    const whole = (await scripted.chat.completions.create(ask)).choices[0];
    const sum = { content: "", reasoning: "", calls: [], end: null };
    const stream = await scripted.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    let usage = null;
    for await (const chunk of stream) {
      usage = chunk.usage ?? usage;
      const choice = chunk.choices[0];
      sum.content += choice?.delta.content ?? "";
      sum.reasoning += choice?.delta.reasoning ?? "";
      for (const piece of choice?.delta.tool_calls ?? []) {
        sum.calls[piece.index] ??= { name: "", arguments: "" };
        sum.calls[piece.index].name += piece.function.name ?? "";
        sum.calls[piece.index].arguments += piece.function.arguments ?? "";
      }
      sum.end = choice?.finish_reason ?? sum.end;
    }
    assert.ok(usage.total_tokens > 0);
    assert.equal(sum.content, whole.message.content ?? "");
    assert.equal(sum.reasoning, whole.message.reasoning ?? "");
    assert.equal(sum.end, whole.finish_reason);
    assert.deepEqual(
      sum.calls,
      (whole.message.tool_calls ?? []).map((call) => ({ name: call.function.name, arguments: call.function.arguments })),
    );
  });
}

test("chat: malformed calls lose no text", async () => {
  const completion = await scripted.chat.completions.create({ model, messages: say("malformed"), tools: [weather] });
  const { message } = completion.choices[0];
  assert.ok(message.content.includes('<tool_call>\n{"name": "weather", "arguments": {"city": '));
  assert.equal(message.tool_calls, undefined);
});

test("chat: the stream helper", async () => {
  const stream = scripted.chat.completions.stream({ model, messages: say("hello") });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  assert.equal(await stream.finalContent(), "You said 'hello' with 0 pictures.");
  assert.equal(text, await stream.finalContent());
});

test("chat: runTools runs the client's own functions", async () => {
  const asked = [];
  const runner = scripted.chat.completions.runTools({
    model,
    messages: say("weather"),
    tools: [
      {
        type: "function",
        function: { ...weather.function, parse: JSON.parse, function: ({ city }) => asked.push(city) && "sunny" },
      },
    ],
  });
  assert.equal(await runner.finalContent(), "The tool said: text.");
  assert.deepEqual(asked, ["Paris"]);
});

test("chat: a tool of the client's returns a picture", async () => {
  const first = await scripted.chat.completions.create({ model, messages: say("weather"), tools: [weather] });
  const { message, finish_reason } = first.choices[0];
  assert.equal(finish_reason, "tool_calls");
  const result = {
    role: "tool",
    tool_call_id: message.tool_calls[0].id,
    content: [{ type: "text", text: "a map" }, { type: "image_url", image_url: { url: PNG } }],
  };
  const second = await scripted.chat.completions.create({
    model,
    messages: [...say("weather"), message, result],
    tools: [weather],
  });
  assert.equal(second.choices[0].message.content, "The tool said: text, picture.");
});

test("chat: tools of the server run there, with every step on the stream", async () => {
  const stream = await scripted.chat.completions.create({
    model,
    messages: say([{ type: "text", text: "zoom" }, { type: "image_url", image_url: { url: PNG } }]),
    tools: [{ type: "builtin", name: "zoom" }],
    stream: true,
  });
  const steps = [];
  let text = "";
  for await (const chunk of stream) {
    if (chunk.step) steps.push(chunk.step);
    text += chunk.choices[0]?.delta.content ?? "";
  }
  assert.deepEqual(
    steps.map((step) => step.type),
    ["turn", "turn_end", "tool_call", "tool_result", "turn", "turn_end"],
  );
  assert.match(steps[3].message.content[0].image_url.url, /^data:image\/png;base64,/);
  assert.match(text, /The tool said/);
});

test("chat: a schema is parsed", async () => {
  const schema = { type: "object", properties: { name: { type: "string" }, legs: { type: "integer" } } };
  const completion = await scripted.chat.completions.parse({
    model,
    messages: say("json"),
    response_format: { type: "json_schema", json_schema: { name: "animal", schema, strict: true } },
  });
  assert.deepEqual(completion.choices[0].message.parsed, { name: "cat", legs: 4 });
});

test("chat: a truncated thought is reported as such", async () => {
  const completion = await scripted.chat.completions.create({ model, messages: say("think"), max_tokens: 4 });
  const [choice] = completion.choices;
  assert.equal(choice.finish_reason, "length");
  assert.equal(choice.thinking_truncated, true);
});

test("chat: n, seed, stop and logprobs with a real engine", async () => {
  const ask = {
    model: await tinyModel(),
    messages: say("hello"),
    n: 2,
    seed: 7,
    max_completion_tokens: 6,
    logprobs: true,
    top_logprobs: 2,
    temperature: 1,
  };
  const [first, again] = [await tiny.chat.completions.create(ask), await tiny.chat.completions.create(ask)];
  assert.equal(first.choices.length, 2);
  assert.deepEqual(
    first.choices.map((choice) => choice.message.content),
    again.choices.map((choice) => choice.message.content),
  );
  assert.equal(first.choices[0].logprobs.content[0].top_logprobs.length, 2);
});

test("chat: a stream is left in the middle", async () => {
  const stream = await scripted.chat.completions.create({ model, messages: say("long"), stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  stream.controller.abort();
  assert.ok(await scripted.chat.completions.create({ model, messages: say("hello") }));
});

test("completions", async () => {
  const ask = { model: await tinyModel(), prompt: ["One,", "Two,"], max_tokens: 5, seed: 3, temperature: 1 };
  const whole = await tiny.completions.create({ ...ask, logprobs: 1 });
  const texts = ["", ""];
  for await (const chunk of await tiny.completions.create({ ...ask, stream: true })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
  }
  assert.deepEqual(
    texts,
    whole.choices.map((choice) => choice.text),
  );
  assert.ok(whole.choices[0].logprobs.tokens.length > 0);
  await assert.rejects(tiny.completions.create({ ...ask, suffix: "x" }), /suffix/);
});

test("responses: whole, gone on with, forgotten", async () => {
  const first = await scripted.responses.create({ model, input: "hello" });
  assert.equal(first.output_text, "You said 'hello' with 0 pictures.");
  const second = await scripted.responses.create({ model, input: "again", previous_response_id: first.id });
  assert.equal(second.output_text, "You said 'again' with 0 pictures.");
  assert.equal((await scripted.responses.retrieve(second.id)).output_text, second.output_text);
  assert.equal((await scripted.responses.inputItems.list(first.id)).data[0].content[0].text, "hello");
  await scripted.responses.delete(first.id);
  await assert.rejects(scripted.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("responses: streamed equals unstreamed", async () => {
  const stream = scripted.responses.stream({ model, input: "hello" });
  const seen = [];
  stream.on("response.output_text.delta", (event) => seen.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(seen.join(""), final.output_text);
  assert.equal(final.output_text, "You said 'hello' with 0 pictures.");
});

test("responses: functions, and pictures in what they return", async () => {
  const tools = [{ type: "function", ...weather.function }];
  const first = await scripted.responses.create({ model, input: "weather", tools });
  const call = first.output.find((item) => item.type === "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
  const output = [{ type: "input_image", image_url: PNG, detail: "auto" }];
  const second = await scripted.responses.create({
    model,
    tools,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output }],
  });
  assert.equal(second.output_text, "The tool said: picture.");
});

test("responses: tools of the server are items", async () => {
  const response = await scripted.responses.create({
    model,
    input: [
      { role: "user", content: [{ type: "input_text", text: "zoom" }, { type: "input_image", image_url: PNG, detail: "auto" }] },
    ],
    tools: [{ type: "mcp", server_label: "tusi", require_approval: "never" }],
  });
  assert.deepEqual(
    response.output.map((item) => item.type),
    ["reasoning", "mcp_call", "message"],
  );
});

test("files and batches", async () => {
  const lines = [1, 2, 3].map((number) => ({
    custom_id: `n${number}`,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model, messages: say(`line ${number}`) },
  }));
  const text = lines.map((line) => JSON.stringify(line)).join("\n");
  const file = await scripted.files.create({ file: await toFile(Buffer.from(text), "in.jsonl"), purpose: "batch" });
  assert.equal((await scripted.files.retrieve(file.id)).bytes, text.length);
  let batch = await scripted.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  const end = Date.now() + 30_000;
  while (batch.status !== "completed") {
    assert.ok(Date.now() < end, `the batch is still ${batch.status}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    batch = await scripted.batches.retrieve(batch.id);
  }
  const output = await (await scripted.files.content(batch.output_file_id)).text();
  assert.deepEqual(
    output.trim().split("\n").map((line) => JSON.parse(line).custom_id),
    ["n1", "n2", "n3"],
  );
  const ids = [];
  for await (const one of scripted.batches.list()) ids.push(one.id);
  assert.ok(ids.includes(batch.id));
  await scripted.files.delete(file.id);
  await assert.rejects(scripted.files.retrieve(file.id), OpenAI.NotFoundError);
});

test("a picture by the id of its file", async () => {
  const bytes = Buffer.from(PNG.split(",")[1], "base64");
  const file = await scripted.files.create({ file: await toFile(bytes, "x.png"), purpose: "vision" });
  const completion = await scripted.chat.completions.create({
    model,
    messages: say([{ type: "text", text: "look" }, { type: "file", file: { file_id: file.id } }]),
  });
  assert.equal(completion.choices[0].message.content, "You said 'look' with 1 pictures.");
});

test("embeddings: pictures have vectors, texts have none", async () => {
  const found = await tiny.embeddings.create({ model: await tinyModel(), input: [PNG, PNG] });
  const [first, second] = found.data.map((item) => item.embedding);
  assert.deepEqual(first, second);
  assert.ok(Math.abs(Math.hypot(...first) - 1) < 1e-3);
  await assert.rejects(tiny.embeddings.create({ model: await tinyModel(), input: "a cat" }), /pictures alone/);
});

test("errors are the client's own", async () => {
  const hello = { model, messages: say("hello") };
  await assert.rejects(scripted.chat.completions.create({ ...hello, model: "gpt-4" }), OpenAI.NotFoundError);
  await assert.rejects(scripted.chat.completions.create({ ...hello, temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(scripted.chat.completions.create({ ...hello, messages: say("busy") }), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return true;
  });
});
