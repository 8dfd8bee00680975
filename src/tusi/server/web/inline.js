// What stands in a line of Markdown: emphasis, code, links, maths, times, and marks that the caller put in.
// Out: a tree of {type, ...}. No text is lost: what is not well-formed stays as it is.

import { findTimes } from "./times.js";

/** A mark stands for entry n of what the caller keeps: MARK_OPEN + n + MARK_CLOSE. Noncharacters: no text has them. */
export const MARK_OPEN = "\uFDD0";
export const MARK_CLOSE = "\uFDD1";

const ESCAPED = /\\([!-/:-@[-`{-~])/y;
const LINK = /(!?)\[((?:[^[\]\\\n]|\\.){0,500})\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+"[^"\n]*")?\s*\)/y;
const AUTOLINK = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const URL_TEXT = /https?:\/\/[A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=%]{1,2000}/y;
const ENTITY = /&(amp|lt|gt|quot|nbsp|#39);/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', nbsp: "\u00A0", "#39": "'" };
const MARK = new RegExp(`${MARK_OPEN}(\\d{1,6})${MARK_CLOSE}`, "y");
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const PLAIN = /[^\\`*_~[!<h&$\n\uFDD0]+/y;

/** Nodes of a text. options.duration: length of a video in seconds; moments within it become {type: "time"}. */
export function parseInline(text, options = {}) {
  return new Inline(text, options).parse();
}

/** A link's address if it may be followed: http, https or mailto; null for everything else. */
export function safeUrl(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

class Inline {
  constructor(text, options) {
    this.text = text;
    this.options = options;
    this.at = 0;
    this.nodes = []; // text nodes, finished nodes, and runs of delimiters
    this.missing = new Set(); // closers that are known not to come any more
  }

  parse() {
    while (this.at < this.text.length) {
      if (!this.#step()) this.#plain(this.text[this.at], 1);
    }
    return this.#withTimes(pairUp(this.nodes));
  }

  #step() {
    const plain = this.#match(PLAIN);
    if (plain) return this.#plain(plain[0], plain[0].length);
    switch (this.text[this.at]) {
      case "\\":
        return this.#backslash();
      case "`":
        return this.#code();
      case "*":
      case "_":
      case "~":
        return this.#run();
      case "[":
      case "!":
        return this.#link();
      case "<":
        return this.#autolink(AUTOLINK, 1);
      case "h":
        return this.#autolink(URL_TEXT, 0);
      case "&":
        return this.#entity();
      case "$":
        return this.#dollars();
      case "\n":
        return this.#break();
      default:
        return this.#mark();
    }
  }

  #match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text);
  }

  #plain(text, length) {
    const last = this.nodes[this.nodes.length - 1];
    if (last?.type === "text") last.text += text;
    else this.nodes.push({ type: "text", text });
    this.at += length;
    return true;
  }

  #push(node, length) {
    this.nodes.push(node);
    this.at += length;
    return true;
  }

  #backslash() {
    const next = this.text[this.at + 1];
    if (next === "\n") return this.#push({ type: "break" }, 2);
    if (next === "(" || next === "[") {
      const end = this.#find(next === "(" ? "\\)" : "\\]", this.at + 2);
      if (end > 0) return this.#push({ type: "math", tex: this.text.slice(this.at + 2, end) }, end + 2 - this.at);
    }
    const escaped = this.#match(ESCAPED);
    return escaped ? this.#plain(escaped[1], 2) : false;
  }

  // Where a closer stands; every closer that is missing is looked for once only.
  #find(closer, from) {
    if (this.missing.has(closer)) return -1;
    const end = this.text.indexOf(closer, from);
    if (end < 0) this.missing.add(closer);
    return end;
  }

  #code() {
    const [marks] = /^`+/.exec(this.text.slice(this.at, this.at + 80));
    let end = this.at + marks.length;
    while (!this.missing.has(marks)) {
      end = this.text.indexOf(marks, end);
      if (end < 0) {
        this.missing.add(marks);
      } else if (this.text[end - 1] !== "`" && this.text[end + marks.length] !== "`") {
        const inside = this.text.slice(this.at + marks.length, end).replace(/\n/g, " ");
        const text = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
        return this.#push({ type: "code", text }, end + marks.length - this.at);
      } else {
        while (this.text[end] === "`") end += 1;
      }
    }
    return this.#plain(marks, marks.length);
  }

  // Emphasis opens before a letter and closes behind one. Chinese punctuation counts as letters: **重点：**后文.
  #run() {
    const character = this.text[this.at];
    let end = this.at;
    while (this.text[end] === character) end += 1;
    const count = end - this.at;
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[end] ?? " ";
    const opens = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
    const closes = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
    const inWord = character === "_" && /\w/.test(before) && /\w/.test(after);
    if (inWord || (!opens && !closes) || (character === "~" && count !== 2)) {
      return this.#plain(this.text.slice(this.at, end), count);
    }
    return this.#push({ type: "run", character, count, opens, closes }, count);
  }

  #link() {
    const match = this.#match(LINK);
    if (!match) return false;
    const [whole, , label, address] = match; // a picture becomes a link: nothing is loaded that a model names
    const href = safeUrl(address);
    if (href === null) return this.#plain(whole, whole.length);
    return this.#push({ type: "link", href, children: parseInline(label || address) }, whole.length);
  }

  #autolink(pattern, border) {
    const match = this.#match(pattern);
    if (!match) return false;
    let address = border ? match[1] : match[0].replace(/[.,:;!?'"*_~]+$/, "");
    if (!border && address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1);
    const href = safeUrl(address);
    if (href === null) return false;
    const children = [{ type: "text", text: address }];
    return this.#push({ type: "link", href, children }, border ? match[0].length : address.length);
  }

  #entity() {
    const match = this.#match(ENTITY);
    return match ? this.#plain(ENTITIES[match[1]], match[0].length) : false;
  }

  // $x$ as Pandoc reads it: no space inside at either end, no digit behind, so that $5 and $6 stay money.
  #dollars() {
    const marks = this.text.startsWith("$$", this.at) ? "$$" : "$";
    const begin = this.at + marks.length;
    const end = this.#find(marks, begin);
    if (end <= begin) return this.#plain(marks, marks.length);
    const tex = this.text.slice(begin, end);
    const isMoney = marks === "$" && (/^\s|\s$|\n\s*\n/.test(tex) || /\d/.test(this.text[end + 1] ?? ""));
    if (isMoney || tex.length > 2000 || tex.includes(MARK_OPEN)) return this.#plain(marks, marks.length);
    return this.#push({ type: "math", tex }, end + marks.length - this.at);
  }

  #break() {
    const last = this.nodes[this.nodes.length - 1];
    if (last?.type === "text") last.text = last.text.replace(/ +$/, "");
    return this.#push({ type: "break" }, 1);
  }

  #mark() {
    const match = this.#match(MARK);
    return match ? this.#push({ type: "mark", index: Number(match[1]) }, match[0].length) : false;
  }

  #withTimes(nodes) {
    const { duration } = this.options;
    if (duration === undefined) return nodes;
    return nodes.flatMap((node) => {
      if (node.children) return [{ ...node, children: this.#withTimes(node.children) }];
      return node.type === "text" ? splitAtTimes(node.text, duration) : [node];
    });
  }
}

function splitAtTimes(text, duration) {
  const nodes = [];
  let at = 0;
  for (const { begin, end, seconds } of findTimes(text, duration)) {
    if (begin > at) nodes.push({ type: "text", text: text.slice(at, begin) });
    nodes.push({ type: "time", seconds, text: text.slice(begin, end) });
    at = end;
  }
  if (at < text.length) nodes.push({ type: "text", text: text.slice(at) });
  return nodes;
}

// Runs of * _ ~ to emphasis: each closer takes the nearest opener of its kind. Openers that are passed over stay text.
function pairUp(nodes) {
  const out = [];
  const openers = { "*": [], _: [], "~": [] };
  for (const node of nodes) {
    if (node.type === "run") closeAndOpen(node, out, openers);
    else out.push(node);
  }
  return merged(out);
}

function closeAndOpen(run, out, openers) {
  const { character } = run;
  let left = run.count;
  while (run.closes && left > 0) {
    const opener = openers[character].pop();
    if (opener === undefined) break;
    const used = character === "~" ? 2 : Math.min(left, opener.node.count, 2);
    const children = merged(out.splice(opener.index + 1));
    for (const stack of Object.values(openers)) {
      while (stack.length && stack[stack.length - 1].index > opener.index) stack.pop();
    }
    opener.node.count -= used;
    left -= used;
    if (opener.node.count > 0) openers[character].push(opener);
    else out.pop();
    out.push({ type: { 1: "em", 2: character === "~" ? "del" : "strong" }[used], children });
  }
  if (left === 0) return;
  const node = { type: "run", character, count: left };
  out.push(node);
  if (run.opens) openers[character].push({ node, index: out.length - 1 });
}

// What is left of runs is text again.
function merged(nodes) {
  const result = [];
  for (const node of nodes) {
    const plain = node.type === "run" ? { type: "text", text: node.character.repeat(node.count) } : node;
    const last = result[result.length - 1];
    if (plain.type === "text" && last?.type === "text") last.text += plain.text;
    else result.push(plain);
  }
  return result;
}
