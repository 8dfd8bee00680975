// A path of the conversation as the body of /v1/chat/completions. Media are fetched by loadMedia(id), which gives a data
// URL or {file_id}; null if it is lost. Pure otherwise.

const NO_RESULT = "error: this call was interrupted before it had a result";

/** The body of a request for what comes after the path. offered: names of the server's tools that are switched on. */
export async function requestBody(path, { model, settings, offered = [], loadMedia }) {
  const body = {
    model,
    messages: await toMessages(path, settings.system, loadMedia),
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

/** The messages of a path, as the model saw them: crops and calls included. */
export async function toMessages(path, system, loadMedia) {
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const node of path) {
    messages.push(...(node.role === "user" ? await fromUser(node, loadMedia) : await fromAnswer(node, loadMedia)));
  }
  return messages;
}

/** The pictures that people sent, in the order in which boxes count them: [{media, node}]. kinds: kind of each medium. */
export function picturesOf(path, kinds) {
  return path.flatMap((node) =>
    node.role === "user" ? node.media.filter((id) => kinds(id) === "image").map((media) => ({ media, node: node.id })) : [],
  );
}

async function fromUser(node, loadMedia) {
  const parts = [];
  for (const id of node.media) {
    const part = await loadMedia(id);
    if (part !== null) parts.push(part);
  }
  if (!parts.length) return node.text ? [{ role: "user", content: node.text }] : [];
  if (node.text) parts.push({ type: "text", text: node.text });
  return [{ role: "user", content: parts }];
}

async function fromAnswer(node, loadMedia) {
  const messages = [];
  for (const turn of node.turns) {
    if (turn.message === null) {
      if (!turn.content && !turn.reasoning) continue;
      const said = { role: "assistant", content: turn.content };
      messages.push(turn.reasoning ? { ...said, reasoning: turn.reasoning } : said);
      continue;
    }
    messages.push(turn.message);
    for (const call of turn.message.tool_calls ?? []) messages.push(await toolMessage(turn, call, loadMedia));
  }
  return messages;
}

async function toolMessage(turn, said, loadMedia) {
  const call = turn.calls.find((item) => item.id === said.id);
  if (!call?.result) return { role: "tool", tool_call_id: said.id, content: NO_RESULT };
  const content = [];
  for (const part of call.result) {
    const sent = part.type === "media" ? await loadMedia(part.media) : part.type === "text" ? part : part.value;
    if (sent !== null) content.push(sent);
  }
  return { role: "tool", tool_call_id: said.id, content };
}
