// An answer while it comes: the server's chunks in, a plain object out that can be kept, shown and sent back.
//
// An answer has turns: the model thinks, writes, calls tools, reads their results, and goes on in the next turn. Pictures
// in results are handed to keepMedia(dataUrl), which gives the id that stands for them. Clocks come as arguments.

/** A new, empty answer. */
export function newAnswer({ id, conversation, parent, model, now }) {
  return {
    id, conversation, parent, role: "assistant", created: now, model, status: "waiting", turns: [], finish: null,
    truncated: false, usage: null, error: null, timing: { asked: now, first: null, last: null, chunks: 0 },
  };
}

/** Takes in one chunk. Gives what has happened: "turn", "thinking", "writing", "call", "result", "finish". */
export function takeChunk(answer, chunk, now, keepMedia) {
  const events = [];
  if (chunk.usage) answer.usage = chunk.usage;
  if (chunk.model) answer.model = chunk.model;
  answer.status = "streaming";
  if (chunk.step) takeStep(answer, chunk.step, now, keepMedia, events);
  const choice = chunk.choices?.[0];
  if (choice === undefined) return events;
  takeDelta(answer, choice.delta ?? {}, now, events);
  if (choice.finish_reason) {
    endThinking(currentTurn(answer, now), now);
    answer.finish = choice.finish_reason;
    answer.truncated = Boolean(choice.thinking_truncated);
    events.push("finish");
  }
  return events;
}

/** Marks how it ended. Calls that still ran have no result, and say so. */
export function endAnswer(answer, status, now, error = null) {
  answer.status = status;
  answer.error = error;
  for (const turn of answer.turns) {
    endThinking(turn, now);
    for (const call of turn.calls) if (call.status === "running") call.status = "unanswered";
  }
}

/** The text of the last turn: what counts as the answer. */
export function answerText(answer) {
  return answer.turns.length ? answer.turns[answer.turns.length - 1].content : "";
}

/** Whether the model has said anything at all. */
export function isEmpty(answer) {
  return answer.turns.every((turn) => !turn.reasoning && !turn.content && !turn.calls.length);
}

/** Above this many a second, chunks may be several tokens each: the server sends at most one in ten milliseconds. */
const CHUNKS_THAT_ARE_TOKENS = 60;

/** Tokens a second while they came; counted as chunks until the server says how many there were. null: not known. */
export function tokensPerSecond(answer) {
  const { first, last, chunks } = answer.timing;
  const tokens = answer.usage?.completion_tokens ?? chunks;
  const seconds = (last - first) / 1000 - toolSeconds(answer);
  if (first === null || tokens < 2 || seconds <= 0.05) return null;
  const speed = (tokens - 1) / seconds;
  return answer.usage || speed <= CHUNKS_THAT_ARE_TOKENS ? speed : null;
}

/** Tokens of the context that the conversation takes with this answer; null if the server has not said. */
export function contextUsed(answer) {
  const usage = answer.turns[answer.turns.length - 1]?.usage ?? (answer.turns.length === 1 ? answer.usage : null);
  return usage ? usage.prompt_tokens + usage.completion_tokens : null;
}

function toolSeconds(answer) {
  return answer.turns.flatMap((turn) => turn.calls).reduce((sum, call) => sum + (call.took ?? 0), 0) / 1000;
}

function takeDelta(answer, delta, now, events) {
  const reasoning = delta.reasoning ?? delta.reasoning_content ?? "";
  const content = delta.content ?? "";
  const calls = delta.tool_calls ?? [];
  if (!reasoning && !content && !calls.length) return;
  const turn = currentTurn(answer, now);
  const { timing } = answer;
  timing.first ??= now;
  timing.last = now;
  timing.chunks += 1;
  if (reasoning) {
    turn.thinkingSince ??= now;
    if (!turn.reasoning) events.push("thinking");
    turn.reasoning += reasoning;
  }
  if (content) {
    // The blank line that stands between two turns for clients that know no steps.
    const text = turn.content || answer.turns.length === 1 ? content : content.replace(/^\n+/, "");
    if (text) endThinking(turn, now);
    if (text && !turn.content) events.push("writing");
    turn.content += text;
  }
  for (const piece of calls) takeClientCall(turn, piece, now);
}

// A call of a tool that the server does not run. The page offers none, but what a model says is shown.
function takeClientCall(turn, piece, now) {
  endThinking(turn, now);
  const at = piece.index ?? turn.calls.length;
  turn.calls[at] ??= { id: piece.id ?? `call_${at}`, name: "", arguments: "", origin: null, status: "running", result: null };
  turn.calls[at].name += piece.function?.name ?? "";
  turn.calls[at].arguments += piece.function?.arguments ?? "";
}

function takeStep(answer, step, now, keepMedia, events) {
  switch (step.type) {
    case "turn":
      answer.turns.push(newTurn(now));
      events.push("turn");
      break;
    case "turn_end": {
      const turn = currentTurn(answer, now);
      endThinking(turn, now);
      turn.message = step.message ?? null;
      turn.usage = step.usage ?? null;
      break;
    }
    case "tool_call":
      takeCall(currentTurn(answer, now), step, now);
      events.push("call");
      break;
    case "tool_result":
      takeResult(currentTurn(answer, now), step, now, keepMedia);
      events.push("result");
      break;
    default: // a newer server's step: what it means is not known here, and the texts come anyway
  }
}

function takeCall(turn, step, now) {
  const { id, name, arguments: text } = step.call;
  turn.calls.push({ id, name, arguments: text, origin: step.origin ?? null, status: "running", since: now, result: null });
}

function takeResult(turn, step, now, keepMedia) {
  let call = turn.calls.findLast((item) => item.id === step.call.id);
  if (call === undefined) {
    takeCall(turn, step, now);
    call = turn.calls[turn.calls.length - 1];
  }
  call.origin = step.origin ?? call.origin;
  call.status = step.is_error ? "error" : "done";
  call.took = now - (call.since ?? now);
  const { content } = step.message;
  const parts = typeof content === "string" ? [{ type: "text", text: content }] : (content ?? []);
  call.result = parts.map((part) => {
    const url = part.image_url?.url ?? part.image_url;
    if (part.type === "text") return { type: "text", text: part.text };
    return typeof url === "string" ? { type: "media", media: keepMedia(url) } : { type: "other", value: part };
  });
}

function currentTurn(answer, now) {
  if (!answer.turns.length) answer.turns.push(newTurn(now));
  return answer.turns[answer.turns.length - 1];
}

function newTurn(now) {
  return { since: now, thinkingSince: null, thinkingTook: null, reasoning: "", content: "", calls: [], message: null, usage: null };
}

function endThinking(turn, now) {
  if (turn.thinkingSince !== null && turn.thinkingTook === null) turn.thinkingTook = now - turn.thinkingSince;
}
