// Reads a text/event-stream. In: text, however it is cut. Out: events as {event, data}. Knows nothing of what they say.

/** Turns pieces of a stream into events; what is not complete waits for the next piece. */
export class SseParser {
  #rest = "";
  #event = "";
  #data = [];

  /** The events that a piece completes. */
  push(text) {
    this.#rest += text;
    const events = [];
    let start = 0;
    for (;;) {
      const found = this.#lineEnd(start);
      if (found === null) break;
      const event = this.#line(this.#rest.slice(start, found.end));
      if (event !== null) events.push(event);
      start = found.next;
    }
    this.#rest = this.#rest.slice(start);
    return events;
  }

  // A line ends with \n, \r\n or \r; a \r at the very end may be half of a \r\n.
  #lineEnd(start) {
    const rest = this.#rest;
    for (let i = start; i < rest.length; i += 1) {
      if (rest[i] === "\n") return { end: i, next: i + 1 };
      if (rest[i] === "\r") {
        if (i + 1 === rest.length) return null;
        return { end: i, next: rest[i + 1] === "\n" ? i + 2 : i + 1 };
      }
    }
    return null;
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
      this.#event = "";
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null; // a comment, which keeps the connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    if (field === "event") this.#event = value;
    return null;
  }
}

/** The events of a response's body, as they come. */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      yield* parser.push(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // the reader of the events left early: nobody wants the rest
  }
}
