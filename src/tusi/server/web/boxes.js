// Boxes and points in an answer, by the rules of tusi.chat.boxes (a test compares the two). Total: it never throws.
// Coordinates are the model's own: 0 to 1000 of the original picture's width and height; no other frame is guessed at.

import { findJson } from "./json.js";

export const SCALE = 1000;

const BOX_KEYS = ["bbox_2d", "bbox", "box_2d", "box", "bounding_box"];
const POINT_KEYS = ["point_2d", "point", "center"];
const LABEL_KEYS = ["label", "name", "text", "text_content", "class", "category", "description"];
const INDEX_KEYS = ["img_idx", "image_idx", "image_index"];
const MAX_TEXT = 40_000;
const MAX_DEPTH = 32;
const PICTURE = /(?:[Pp]icture|[Ii]mage|图片?|第)\s?(\d{1,3})(?:\s?[张幅])?/g;

/**
 * The places in an answer where shapes stand, in order: {begin, end, shapes, whole, final, isCut}.
 *
 * A shape is {kind: "box", corners: [x1, y1, x2, y2]} or {kind: "point", at: [x, y]}, with label and imgIdx (null if the
 * answer does not say). final: the answer ends on it; of several lists the last one counts, of single boxes those of
 * the last paragraph that has any. isOpen: the answer is still being written; a list that it ends in (isCut) then has the
 * shapes that are complete.
 */
export function findPlaces(content, numImages = 1, isOpen = false) {
  const offset = Math.max(0, content.length - MAX_TEXT);
  const text = content.slice(offset);
  const found = [];
  for (const { begin, end, value, isCut } of findJson(text, isOpen)) {
    const shapes = shapesByPicture(value, numImages);
    if (shapes.length) found.push({ begin, end, shapes, whole: isWhole(value), final: false, isCut });
  }
  if (!found.length) return found;
  const last = found[found.length - 1];
  if (last.whole) {
    last.final = true;
  } else {
    const paragraph = lastParagraph(text, last.begin);
    for (const place of found) place.final = place.begin >= paragraph && !place.whole;
  }
  for (const place of found) {
    place.shapes = withPicture(place, text, numImages);
    place.begin += offset;
    place.end += offset;
  }
  return found;
}

/** The boxes and points that an answer ends on. */
export function findShapes(content, numImages = 1) {
  return findPlaces(content, numImages)
    .filter((place) => place.final)
    .flatMap((place) => place.shapes);
}

/** Whether a shape lies within the picture, a box with an area. */
export function isInside(shape) {
  if (shape.kind === "point") return shape.at.every((value) => value >= 0 && value <= SCALE);
  const [x1, y1, x2, y2] = shape.corners;
  return x1 >= 0 && x1 < x2 && x2 <= SCALE && y1 >= 0 && y1 < y2 && y2 <= SCALE;
}

/** The box that a zoom call asked for, clamped as the server clamps it; null if it is none. */
export function zoomBox(argumentsText) {
  const [found] = findJson(argumentsText);
  if (found === undefined || !(found.value instanceof Map)) return null;
  const values = numbers(found.value.get("bbox_2d"), 4);
  if (values === null) return null;
  const corners = values.map((value) => Math.min(Math.max(value, 0), SCALE));
  const shape = { kind: "box", corners, label: label(found.value), imgIdx: index(found.value) };
  return isInside(shape) ? shape : null;
}

function lastParagraph(text, before) {
  let start = 0;
  for (const match of text.slice(0, before).matchAll(/\n[ \t]*\n/g)) start = match.index + match[0].length;
  return start;
}

function isWhole(value) {
  if (value instanceof Map) return box(value) === null && point(value) === null;
  return corners(value) === null;
}

function shapesByPicture(value, numImages) {
  const isPerPicture =
    numImages > 1 &&
    Array.isArray(value) &&
    value.length === numImages &&
    value.every((item) => Array.isArray(item) && corners(item) === null);
  if (!isPerPicture) return shapes(value, null, 0);
  return value.flatMap((item, index) => shapes(item, null, 0).map((shape) => numbered(shape, index)));
}

function shapes(value, name, depth) {
  if (depth > MAX_DEPTH) return [];
  if (value instanceof Map) {
    const shape = box(value) ?? point(value);
    if (shape !== null) return [{ ...shape, label: shape.label ?? name }];
    // {"cat": [1, 2, 3, 4]}: the key names it; {"objects": [...]}: the items name themselves.
    return [...value].flatMap(([key, item]) => shapes(item, corners(item) === null ? name : key, depth + 1));
  }
  if (!Array.isArray(value)) return [];
  const found = corners(value);
  if (found !== null) return [{ kind: "box", corners: found, label: name, imgIdx: null }];
  return value.flatMap((item) => shapes(item, name, depth + 1));
}

function box(value) {
  for (const key of BOX_KEYS) {
    const found = corners(value.get(key));
    if (found !== null) return { kind: "box", corners: found, label: label(value), imgIdx: index(value) };
  }
  return null;
}

function point(value) {
  for (const key of POINT_KEYS) {
    const found = numbers(value.get(key), 2);
    if (found !== null) return { kind: "point", at: found, label: label(value), imgIdx: index(value) };
  }
  return null;
}

function corners(value) {
  let flat = value;
  if (Array.isArray(value) && value.length === 2 && value.every((item) => Array.isArray(item) && item.length === 2)) {
    flat = [...value[0], ...value[1]];
  }
  const found = numbers(flat, 4);
  if (found === null) return null;
  const [xa, ya, xb, yb] = found;
  return [Math.min(xa, xb), Math.min(ya, yb), Math.max(xa, xb), Math.max(ya, yb)];
}

function numbers(value, count) {
  if (!Array.isArray(value) || value.length !== count) return null;
  return value.every((item) => typeof item === "number" && Math.abs(item) < 1e9) ? value : null;
}

function label(value) {
  for (const key of LABEL_KEYS) {
    const text = value.get(key);
    if (typeof text === "string" && text) return text;
  }
  return null;
}

function index(value) {
  for (const key of INDEX_KEYS) {
    const number = value.get(key);
    if (Number.isInteger(number) && number >= 0) return number;
  }
  return null;
}

function numbered(shape, index) {
  return shape.imgIdx === null ? { ...shape, imgIdx: index } : shape;
}

function withPicture(place, text, numImages) {
  if (numImages === 1) return place.shapes;
  const named = [...text.slice(0, place.begin).matchAll(PICTURE)];
  const number = named.length ? Number(named[named.length - 1][1]) : 0;
  if (number < 1 || number > numImages) return place.shapes;
  return place.shapes.map((shape) => numbered(shape, number - 1));
}
