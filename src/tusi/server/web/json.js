// JSON values inside a longer text. Total and bounded: whatever the text is, nothing throws and nothing takes long.

const MAX_DEPTH = 40;
const MAX_STEPS = 400_000;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WORD = /true|false|null/y;
const OPENING = /[[{]/g;

// Thrown inside this module only; an Error would gather a stack trace each time.
const NOT_JSON = Symbol("not JSON");

/** Finds the outermost lists and objects: [{begin, end, value}], in order. What is not JSON is passed over. */
export function findJson(text) {
  const reader = new Reader(text);
  const found = [];
  let position = 0;
  for (;;) {
    OPENING.lastIndex = position;
    const match = OPENING.exec(text);
    if (match === null || reader.steps > MAX_STEPS) return found;
    const begin = match.index;
    try {
      const value = reader.read(begin);
      found.push({ begin, end: reader.position, value });
      position = reader.position;
    } catch (error) {
      if (error !== NOT_JSON) throw error;
      position = begin + 1; // not JSON from here; what is inside may be
    }
  }
}

class Reader {
  constructor(text) {
    this.text = text;
    this.position = 0;
    this.steps = 0;
  }

  read(begin) {
    this.position = begin;
    return this.#value(0);
  }

  #value(depth) {
    if (depth > MAX_DEPTH || this.steps > MAX_STEPS) throw NOT_JSON;
    const next = this.text[this.position];
    if (next === "{") return this.#object(depth);
    if (next === "[") return this.#list(depth);
    if (next === '"') return JSON.parse(this.#match(STRING));
    if (next === "t" || next === "f" || next === "n") return JSON.parse(this.#match(WORD));
    return Number(this.#match(NUMBER));
  }

  #list(depth) {
    const items = [];
    this.#skip("[");
    if (this.#has("]")) return items;
    for (;;) {
      items.push(this.#value(depth + 1));
      this.#space();
      if (this.#has("]")) return items;
      this.#skip(",");
    }
  }

  #object(depth) {
    const entries = new Map(); // a key may be __proto__
    this.#skip("{");
    if (this.#has("}")) return entries;
    for (;;) {
      const key = JSON.parse(this.#match(STRING));
      this.#space();
      this.#skip(":");
      entries.set(key, this.#value(depth + 1));
      this.#space();
      if (this.#has("}")) return entries;
      this.#skip(",");
    }
  }

  #match(pattern) {
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.text);
    this.steps += match === null ? 1 : match[0].length;
    if (match === null) throw NOT_JSON;
    this.position += match[0].length;
    return match[0];
  }

  #space() {
    SPACE.lastIndex = this.position;
    const length = SPACE.exec(this.text)[0].length;
    this.position += length;
    this.steps += length + 1;
  }

  #skip(character) {
    this.steps += 1;
    if (this.text[this.position] !== character) throw NOT_JSON;
    this.position += 1;
    this.#space();
  }

  #has(character) {
    if (this.text[this.position] !== character) return false;
    this.position += 1;
    return true;
  }
}
