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

// What a text that is still being written may end on: a piece of a text, a number or a word, or nothing at all.
const CUT = /(?:"(?:[^"\\\u0000-\u001f]|\\.)*\\?|-|tr?u?|fa?l?s?|nu?l?)?$/y;

/**
 * Finds the outermost lists and objects: [{begin, end, value, isCut}], in order. What is not JSON is passed over.
 *
 * isOpen: the text is still being written. The list or object that it ends in is then found too, with what is complete
 * in it.
 */
export function findJson(text, isOpen = false) {
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
      found.push({ begin, end: reader.position, value, isCut: false });
      position = reader.position;
    } catch (error) {
      if (error !== NOT_JSON) throw error;
      const rest = isOpen && reader.isCut ? reader.complete(begin) : null;
      if (rest !== null) return [...found, { begin, end: text.length, value: rest, isCut: true }];
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
    this.isCut = false; // whether it ended where the text does
    this.closers = [];
    this.safe = null; // the last place where something was complete: {position, closers}
    return this.#value(0);
  }

  /** What was complete of a value that was cut off; null if nothing was. */
  complete(begin) {
    return this.safe === null ? null : new Reader(this.text.slice(begin, this.safe.position) + this.safe.closers).read(0);
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
    this.#open("[", "]");
    if (this.#closes("]")) return items;
    for (;;) {
      items.push(this.#value(depth + 1));
      this.#space();
      this.#noteItem("]");
      if (this.#closes("]")) return items;
      this.#skip(",");
    }
  }

  #object(depth) {
    const entries = new Map(); // a key may be __proto__
    this.#open("{", "}");
    if (this.#closes("}")) return entries;
    for (;;) {
      const key = JSON.parse(this.#match(STRING));
      this.#space();
      this.#skip(":");
      entries.set(key, this.#value(depth + 1));
      this.#space();
      this.#noteItem("}");
      if (this.#closes("}")) return entries;
      this.#skip(",");
    }
  }

  #match(pattern) {
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.text);
    this.steps += match === null ? 1 : match[0].length;
    if (match === null) {
      CUT.lastIndex = this.position;
      this.isCut = CUT.test(this.text);
      throw NOT_JSON;
    }
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
    if (this.text[this.position] !== character) {
      this.isCut = this.position >= this.text.length;
      throw NOT_JSON;
    }
    this.position += 1;
    this.#space();
  }

  #open(character, closer) {
    this.#skip(character);
    this.closers.unshift(closer);
  }

  #closes(closer) {
    if (this.text[this.position] !== closer) return false;
    this.position += 1;
    this.closers.shift();
    return true;
  }

  // An item is known to be complete by what follows it: 12 may become 123.
  #noteItem(closer) {
    const next = this.text[this.position];
    if (next === "," || next === closer) this.safe = { position: this.position, closers: this.closers.join("") };
  }
}
