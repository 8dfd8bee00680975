// Talks to the server this page came from, by its public API. Everything that goes wrong is an ApiError with a kind that
// the page has words for.

import { readEvents } from "./sse.js";

/**
 * kind: unauthorized, busy, too_large, refused, server, unreachable, cut. message: what the server said, "" if nothing.
 * retryAfter: seconds, if the server named them.
 */
export class ApiError extends Error {
  constructor(kind, message, { status = null, retryAfter = null, param = null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryAfter = retryAfter;
    this.param = param;
  }
}

export class Api {
  #key = "";

  /** key: sent with each request; "" for none. */
  setKey(key) {
    this.#key = key;
  }

  /** What the server may tell: {models, facts, tools}. A server without facts or tools has none. */
  async describe() {
    const models = await this.#json("v1/models");
    const [facts, tools] = await Promise.all([this.#optional("v1/facts"), this.#optional("v1/tools")]);
    return { models: models.data.map((card) => ({ ...card })), facts: facts ?? {}, tools: tools?.data ?? [] };
  }

  /** The chunks of a chat completion. Raises ApiError; AbortError if the signal says so. */
  async *chat(body, signal) {
    const text = JSON.stringify(body);
    const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
    const response = await this.#fetch("v1/chat/completions", { method: "POST", body: text, headers, signal });
    let isDone = false;
    try {
      for await (const { data } of readEvents(response.body)) {
        if (data === "[DONE]") {
          isDone = true;
          break;
        }
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ApiError(kindOf(chunk.error), chunk.error.message ?? "");
        yield chunk;
      }
    } catch (error) {
      if (error instanceof ApiError || error.name === "AbortError") throw error;
      throw new ApiError("cut", String(error.message ?? error));
    }
    if (!isDone) throw new ApiError("cut", "");
  }

  async #optional(path) {
    try {
      return await this.#json(path);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    }
  }

  async #json(path) {
    const response = await this.#fetch(path, {});
    return response.json();
  }

  async #fetch(path, options) {
    const headers = { ...options.headers };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    let response;
    try {
      // Relative to the page, so that it also works below a path of a reverse proxy.
      response = await fetch(new URL(path, document.baseURI), { ...options, headers, credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("unreachable", "");
    }
    if (response.ok) return response;
    throw await fromResponse(response);
  }
}

async function fromResponse(response) {
  let detail = {};
  try {
    detail = (await response.json()).error ?? {};
  } catch {
    // not JSON: a proxy's page, which says nothing to a person
  }
  const kinds = { 401: "unauthorized", 403: "refused", 413: "too_large", 429: "busy" };
  const kind = kinds[response.status] ?? (response.status === 503 ? "busy" : response.status >= 500 ? "server" : "refused");
  const after = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new ApiError(kind, detail.message ?? "", {
    status: response.status,
    retryAfter: Number.isFinite(after) ? after : null,
    param: detail.param ?? null,
  });
}

function kindOf(error) {
  if (error.type === "rate_limit_error") return "busy";
  return error.type === "invalid_request_error" ? "refused" : "server";
}
