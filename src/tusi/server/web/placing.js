// Where in a text JSON that marks something is replaced by a mark of inline.js, and where it is left as it stands. Pure.

import { MARK_CLOSE, MARK_OPEN } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;

/**
 * {text, kinds}. kinds: what became of each place: "block" (a mark that stands alone between other blocks), "inline" (a mark
 * in a line), or null (it is part of some code, and stays). places: see boxes.findPlaces.
 */
export function withMarks(text, places) {
  const fences = findFences(text);
  const kinds = [];
  let out = "";
  let at = 0;
  places.forEach((place, index) => {
    const found = placeOf(text, place, fences);
    const isText = found === null || (found.kind === "inline" && !place.final); // a later list has replaced it
    kinds.push(isText ? null : found.kind);
    if (isText) return;
    const mark = `${MARK_OPEN}${index}${MARK_CLOSE}`;
    out += clean(text.slice(at, found.begin)) + (found.kind === "block" ? `\n\n${mark}\n\n` : mark);
    at = found.end;
  });
  return { text: out + clean(text.slice(at)), kinds };
}

function clean(text) {
  return text.replace(/[\uFDD0\uFDD1]/g, "\uFFFD");
}

function placeOf(text, { begin, end }, fences) {
  const fence = fences.find((item) => item.begin <= begin && begin < item.end);
  if (fence !== undefined) {
    const isAlone = !text.slice(fence.inside, begin).trim() && !text.slice(end, fence.insideEnd).trim();
    return isAlone ? { kind: "block", begin: fence.begin, end: Math.max(end, fence.end) } : null;
  }
  const lineBegin = text.lastIndexOf("\n", begin - 1) + 1;
  const lineEnd = text.indexOf("\n", end) < 0 ? text.length : text.indexOf("\n", end);
  const before = text.slice(lineBegin, begin);
  const after = text.slice(end, lineEnd);
  if (!before.trim() && !after.trim()) return { kind: "block", begin: lineBegin, end: lineEnd };
  if (before.endsWith("`") && after.startsWith("`") && !before.endsWith("``") && !after.startsWith("``")) {
    return { kind: "inline", begin: begin - 1, end: end + 1 };
  }
  const isInCode = (before.match(/`/g) ?? []).length % 2 === 1;
  return isInCode ? null : { kind: "inline", begin, end };
}

// Blocks of code: {begin, end} with their fences, {inside, insideEnd} without. The last one may still be open.
function findFences(text) {
  const found = [];
  let open = null;
  let at = 0;
  for (const line of text.split("\n")) {
    const match = FENCE.exec(line);
    const next = Math.min(at + line.length + 1, text.length);
    if (open === null && match) {
      open = { marks: match[1], begin: at, inside: next };
    } else if (open !== null && match && !match[2].trim() && match[1][0] === open.marks[0] && match[1].length >= open.marks.length) {
      found.push({ ...open, insideEnd: at, end: at + line.length });
      open = null;
    }
    at = next;
  }
  if (open !== null) found.push({ ...open, insideEnd: text.length, end: text.length });
  return found;
}
