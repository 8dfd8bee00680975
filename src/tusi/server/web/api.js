// Talks to the server this page came from, by its public API. Everything that goes wrong is an ApiError with a kind that
// the page has words for.

import { readEvents } from "./sse.js";

/**
 * kind: unauthorized, busy, too_large, refused, server, unreachable, cut. message: what the server said, "" if nothing.
 * retryAfter: seconds, if the server named them. param, code: which field was at fault and the reason, as it calls them.
 */
export class ApiError extends Error {
  constructor(kind, message, { status = null, retryAfter = null, param = null, code = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, retryAfter, param, code });
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

  /**
   * Uploads a file that lies there for `lifetime` seconds: {file, expires}, its name there and when it goes (milliseconds;
   * null: never). onProgress is told how much has been sent, 0 to 1. Raises ApiError; AbortError if the signal says so.
   */
  upload(blob, name, { lifetime, signal, onProgress }) {
    const form = new FormData();
    form.append("purpose", "vision");
    form.append("expires_after[anchor]", "created_at");
    form.append("expires_after[seconds]", String(lifetime));
    form.append("file", blob, name || "picture");
    // fetch tells nothing of how far it is.
    const request = new XMLHttpRequest();
    return new Promise((resolve, reject) => {
      request.open("POST", address("v1/files"));
      for (const [header, value] of Object.entries(this.#headers())) request.setRequestHeader(header, value);
      request.upload.onprogress = ({ loaded, total }) => total && onProgress(loaded / total);
      request.onerror = () => reject(new ApiError("unreachable", ""));
      request.onabort = () => reject(signal.reason);
      request.onload = () => {
        const body = parsed(request.responseText);
        if (request.status !== 200) reject(errorOf(request.status, body, request.getResponseHeader("Retry-After")));
        else resolve({ file: body.id, expires: body.expires_at === null ? null : body.expires_at * 1000 });
      };
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }

  /** Deletes an uploaded file. Raises ApiError. */
  async deleteFile(file) {
    await this.#fetch(`v1/files/${encodeURIComponent(file)}`, { method: "DELETE" });
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
    const headers = { ...options.headers, ...this.#headers() };
    let response;
    try {
      response = await fetch(address(path), { ...options, headers, credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("unreachable", "");
    }
    if (response.ok) return response;
    throw errorOf(response.status, parsed(await response.text()), response.headers.get("Retry-After"));
  }

  #headers() {
    return this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
  }
}

/** An error as it is kept with the answer that ended in it. */
export function describe(error) {
  if (error instanceof ApiError) return { kind: error.kind, message: error.message, param: error.param };
  console.error(error);
  return { kind: "page", message: String(error.message ?? error), param: null };
}

// Relative to the page, so that it also works below a path of a reverse proxy.
function address(path) {
  return new URL(path, document.baseURI);
}

// {} for what is not JSON: a proxy's page, which says nothing to a person.
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function errorOf(status, body, retryAfter) {
  const detail = body.error ?? {};
  const kinds = { 401: "unauthorized", 403: "refused", 413: "too_large", 429: "busy" };
  const kind = kinds[status] ?? (status === 503 ? "busy" : status >= 500 ? "server" : "refused");
  const after = Number.parseFloat(retryAfter ?? "");
  return new ApiError(kind, detail.message ?? "", {
    status,
    retryAfter: Number.isFinite(after) ? after : null,
    param: detail.param ?? null,
    code: detail.code ?? null,
  });
}

function kindOf(error) {
  if (error.type === "rate_limit_error") return "busy";
  return error.type === "invalid_request_error" ? "refused" : "server";
}
