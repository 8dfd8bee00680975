// Markdown to a tree of plain objects: blocks here, what stands in a line in inline.js. Total and near-linear.
// It makes no HTML: render.js builds nodes from the tree, so whatever a model writes is text.

import { parseInline } from "./inline.js";

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)(.*)$/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MAX_DEPTH = 12;

/**
 * The blocks of a text. Each has type and source (its own lines, so that a caller can see what has not changed).
 * options are parseInline's.
 */
export function parseMarkdown(text, options = {}) {
  return new Blocks(text.replace(/\r\n?/g, "\n").split("\n"), options, 0).parse();
}

class Blocks {
  constructor(lines, options, depth) {
    this.lines = lines;
    this.options = options;
    this.depth = depth;
    this.at = 0;
  }

  parse() {
    const blocks = [];
    while (this.at < this.lines.length) {
      const start = this.at;
      if (!this.lines[start].trim()) {
        this.at += 1;
        continue;
      }
      const block = this.#block();
      block.source = this.lines.slice(start, this.at).join("\n");
      blocks.push(block);
    }
    return blocks;
  }

  #block() {
    const line = this.lines[this.at];
    const nested = this.depth < MAX_DEPTH;
    const fence = FENCE.exec(line);
    if (fence) return this.#fence(fence);
    if (/^ {0,3}(\$\$|\\\[)/.test(line)) {
      const math = this.#math(line.trim());
      if (math) return math;
    }
    const heading = HEADING.exec(line);
    if (heading) {
      this.at += 1;
      return { type: "heading", level: heading[1].length, inline: this.#inline(heading[2]) };
    }
    if (RULE.test(line)) {
      this.at += 1;
      return { type: "rule" };
    }
    if (nested && QUOTE.test(line)) return this.#quote();
    if (nested && ITEM.test(line)) return this.#list();
    if (this.#isTable(this.at)) return this.#table();
    return this.#paragraph();
  }

  #inline(text) {
    return parseInline(text, this.options);
  }

  #fence([, indent, marks, info]) {
    const closing = new RegExp(`^ {0,3}${marks[0] === "`" ? "`" : "~"}{${marks.length},}\\s*$`);
    const body = [];
    this.at += 1;
    let closed = false;
    while (this.at < this.lines.length) {
      const line = this.lines[this.at];
      this.at += 1;
      if (closing.test(line)) {
        closed = true;
        break;
      }
      body.push(indent && line.startsWith(indent) ? line.slice(indent.length) : line);
    }
    return { type: "code", lang: info.trim().split(/\s+/)[0].slice(0, 40), text: body.join("\n"), closed };
  }

  #math(first) {
    const [opening, closing] = first.startsWith("$$") ? ["$$", "$$"] : ["\\[", "\\]"];
    const inside = [];
    for (let i = this.at; i < Math.min(this.lines.length, this.at + 40); i += 1) {
      const line = i === this.at ? first.slice(opening.length) : this.lines[i];
      if (i > this.at && !line.trim()) return null;
      const end = line.indexOf(closing);
      if (end >= 0) {
        if (line.slice(end + 2).trim()) return null; // text goes on behind it: it belongs to a paragraph
        inside.push(line.slice(0, end));
        this.at = i + 1;
        return { type: "math", tex: inside.join("\n").trim() };
      }
      inside.push(line);
    }
    return null;
  }

  #quote() {
    const inside = [];
    while (this.at < this.lines.length && QUOTE.test(this.lines[this.at])) {
      inside.push(this.lines[this.at].replace(QUOTE, ""));
      this.at += 1;
    }
    return { type: "quote", blocks: this.#nested(inside) };
  }

  #nested(lines) {
    return new Blocks(lines, this.options, this.depth + 1).parse();
  }

  #list() {
    const [, , first] = ITEM.exec(this.lines[this.at]);
    const ordered = /\d/.test(first);
    const items = [];
    while (this.at < this.lines.length) {
      const match = ITEM.exec(this.lines[this.at]);
      if (!match || /\d/.test(match[2]) !== ordered || RULE.test(this.lines[this.at])) break;
      items.push({ blocks: this.#nested(this.#item(match)) });
      let next = this.at;
      while (next < this.lines.length && !this.lines[next].trim()) next += 1;
      const again = next < this.lines.length && ITEM.exec(this.lines[next]);
      if (!again || /\d/.test(again[2]) !== ordered) break;
      this.at = next;
    }
    return { type: "list", ordered, start: ordered ? Number.parseInt(first, 10) : 1, items };
  }

  #item([, indent, marker, text]) {
    const width = indent.length + marker.length + 1;
    const inside = [text];
    this.at += 1;
    while (this.at < this.lines.length) {
      const line = this.lines[this.at];
      const spaces = /^[ \t]*/.exec(line)[0].replace(/\t/g, "    ").length;
      if (!line.trim()) {
        const next = this.lines[this.at + 1] ?? "";
        if (!next.trim() || /^ */.exec(next)[0].length < Math.min(width, indent.length + 2)) break;
        inside.push("");
      } else if (spaces >= Math.min(width, indent.length + 2)) {
        inside.push(line.replace(/\t/g, "    ").slice(Math.min(spaces, width)));
      } else if (ITEM.test(line) || this.#interrupts(this.at)) {
        break;
      } else {
        inside.push(line.trimStart()); // a paragraph goes on without being indented
      }
      this.at += 1;
    }
    return inside;
  }

  #isTable(at) {
    const rule = this.lines[at + 1];
    if (rule === undefined || !this.lines[at].includes("|") || !TABLE_RULE.test(rule)) return false;
    return cells(rule).length === cells(this.lines[at]).length;
  }

  #table() {
    const head = cells(this.lines[this.at]);
    const align = cells(this.lines[this.at + 1]).map((rule) => {
      if (rule.endsWith(":")) return rule.startsWith(":") ? "center" : "right";
      return rule.startsWith(":") ? "left" : null;
    });
    const rows = [];
    this.at += 2;
    while (this.at < this.lines.length && this.lines[this.at].trim() && this.lines[this.at].includes("|")) {
      const row = cells(this.lines[this.at]);
      // A longer row than its head keeps what is too much in its last cell.
      if (row.length > head.length) row.push(row.splice(head.length - 1).join(" | "));
      while (row.length < head.length) row.push("");
      rows.push(row);
      this.at += 1;
    }
    const parse = (row) => row.map((cell) => this.#inline(cell));
    return { type: "table", align, head: parse(head), rows: rows.map(parse) };
  }

  #paragraph() {
    const inside = [this.lines[this.at]];
    this.at += 1;
    while (this.at < this.lines.length && this.lines[this.at].trim() && !this.#interrupts(this.at)) {
      inside.push(this.lines[this.at]);
      this.at += 1;
    }
    const text = inside.map((line) => line.replace(/^[ \t]+/, "")).join("\n");
    return { type: "paragraph", inline: this.#inline(text) };
  }

  #interrupts(at) {
    const line = this.lines[at];
    if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || this.#isTable(at)) return true;
    if (/^ {0,3}(\$\$|\\\[)/.test(line)) return true;
    if (this.depth >= MAX_DEPTH) return false;
    const item = ITEM.exec(line);
    return QUOTE.test(line) || (item !== null && item[3] !== "" && (/^[-*+]/.test(item[2]) || /^1[.)]/.test(item[2])));
  }
}

// The cells of a row; \| and a bar inside `code` do not divide.
function cells(line) {
  const row = line.trim().replace(/^\|/, "");
  const found = [];
  let cell = "";
  let inCode = false;
  for (let i = 0; i < row.length; i += 1) {
    if (row[i] === "\\" && row[i + 1] === "|") {
      cell += "|";
      i += 1;
    } else if (row[i] === "|" && !inCode) {
      found.push(cell.trim());
      cell = "";
    } else {
      if (row[i] === "`" && row.indexOf("`", i + 1) >= 0) inCode = !inCode;
      else if (row[i] === "`") inCode = false;
      cell += row[i];
    }
  }
  if (cell.trim() || !found.length) found.push(cell.trim());
  return found;
}
