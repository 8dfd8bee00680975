// A path of the conversation as the body of /v1/chat/completions. Media are named: fileOf(id) gives the name of a medium
// on the server; null if it is lost. Pure otherwise.

const NO_RESULT = "error: this call was interrupted before it had a result";

/** The body of a request for what comes after the path. offered: names of the server's tools that are switched on. */
export async function requestBody(path, { model, settings, offered = [], fileOf }) {
  const body = {
    model,
    messages: await toMessages(path, settings.system, fileOf),
    stream: true,
    stream_options: { include_usage: true },
  };
  if (settings.temperature !== null) body.temperature = settings.temperature;
  if (settings.maxTokens !== null) body.max_tokens = settings.maxTokens;
  if (settings.thinking === "budget") body.thinking_budget = settings.budget;
  if (settings.thinking === "off") body.chat_template_kwargs = { enable_thinking: false };
  if (offered.length) body.tools = offered.map((name) => ({ type: "builtin", name }));
  return body;
}

/** The media that go with a path: those of people and those of tools. */
export function mediaOf(path) {
  const results = (node) => node.turns.flatMap((turn) => turn.calls).flatMap((call) => call.result ?? []);
  return path.flatMap((node) =>
    node.role === "user" ? node.media : results(node).flatMap((part) => (part.type === "media" && part.media ? [part.media] : [])),
  );
}

/** The messages of a path, as the model saw them: crops and calls included. */
export async function toMessages(path, system, fileOf) {
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const node of path) {
    messages.push(...(node.role === "user" ? await fromUser(node, fileOf) : await fromAnswer(node, fileOf)));
  }
  return messages;
}

/** The pictures that people sent, in the order in which boxes count them: [{media, node}]. kinds: kind of each medium. */
export function picturesOf(path, kinds) {
  return path.flatMap((node) =>
    node.role === "user" ? node.media.filter((id) => kinds(id) === "image").map((media) => ({ media, node: node.id })) : [],
  );
}

async function fromUser(node, fileOf) {
  const parts = [];
  for (const id of node.media) parts.push(...(await named(id, fileOf)));
  if (!parts.length) return node.text ? [{ role: "user", content: node.text }] : [];
  if (node.text) parts.push({ type: "text", text: node.text });
  return [{ role: "user", content: parts }];
}

async function fromAnswer(node, fileOf) {
  const messages = [];
  for (const turn of node.turns) {
    if (turn.message === null) {
      if (!turn.content && !turn.reasoning) continue;
      const said = { role: "assistant", content: turn.content };
      messages.push(turn.reasoning ? { ...said, reasoning: turn.reasoning } : said);
      continue;
    }
    messages.push(turn.message);
    for (const call of turn.message.tool_calls ?? []) messages.push(await toolMessage(turn, call, fileOf));
  }
  return messages;
}

async function toolMessage(turn, said, fileOf) {
  const call = turn.calls.find((item) => item.id === said.id);
  if (!call?.result) return { role: "tool", tool_call_id: said.id, content: NO_RESULT };
  const content = [];
  for (const part of call.result) {
    if (part.type === "media") content.push(...(await named(part.media, fileOf)));
    else content.push(part.type === "text" ? part : part.value);
  }
  return { role: "tool", tool_call_id: said.id, content };
}

async function named(id, fileOf) {
  const file = id === null ? null : await fileOf(id);
  return file === null ? [] : [{ type: "file", file: { file_id: file } }];
}
