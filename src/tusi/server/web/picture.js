// A picture with what is marked in it: the marks lie over it in fractions of its size, so they are right at every size.
// Marks of the same thing in several places (picture, legend, tool card, viewer) light up together.

import { h } from "./dom.js";
import { t } from "./i18n.js";
import { isInside, SCALE } from "./boxes.js";

// With more marks than this, only the one that is lit says what it is called: always, or in a narrow picture.
const CROWD = 12;
const SEVERAL = 2;

const urls = new Map();

/** The address under which a kept medium can be shown. */
export function mediumUrl(record) {
  if (!urls.has(record.id)) urls.set(record.id, URL.createObjectURL(record.blob));
  return urls.get(record.id);
}

/**
 * A stage: the picture and its marks. options: alt; marks; names: whether tags carry labels (names only if not);
 * spot: dim what lies outside the one mark; onOpen: makes the picture a button.
 */
export function stage(record, { alt, marks = [], names = true, spot = false, onOpen = null, openLabel = "" }) {
  const image = h("img", { src: mediumUrl(record), alt, draggable: "false", decoding: "async" });
  const crowd = `${marks.length > SEVERAL ? " has-several" : ""}${marks.length > CROWD ? " is-crowded" : ""}`;
  const element = h("div", { class: `stage${spot ? " is-spot" : ""}${crowd}` }, image);
  const resize = (width, height) => {
    element.style.setProperty("--ratio", String(width / height));
    element.style.setProperty("--natural", `${width}px`);
  };
  if (record.width) resize(record.width, record.height);
  else image.addEventListener("load", () => resize(image.naturalWidth, image.naturalHeight), { once: true });
  image.addEventListener("error", () => element.replaceChildren(h("span", { class: "lost" }, record.name || alt)), { once: true });
  if (onOpen) element.append(h("button", { type: "button", class: "stage-open", "aria-label": openLabel, on: { click: onOpen } }));
  element.append(...marks.map((mark) => overlay(mark, names)));
  return element;
}

/** What a mark is called. */
export function markName(mark) {
  return mark.label ? t("boxLabel", { n: mark.name, label: mark.label }) : t("boxNoLabel", { n: mark.name });
}

/** The marks as a row of buttons that light up what they name. */
export function legend(marks) {
  return h("ul", { class: "legend" }, marks.map((mark) => h("li", {}, chip(mark))));
}

/** One mark as a button in a text or in a legend. */
export function chip(mark) {
  const values = mark.shape.kind === "box" ? mark.shape.corners : mark.shape.at;
  const outside = isInside(mark.shape) ? "" : " is-outside";
  const button = h(
    "button",
    {
      type: "button",
      class: `chip colour-${mark.colour}${outside}`,
      "aria-pressed": "false",
      title: `[${values.join(", ")}]`,
      data: { mark: mark.id },
    },
    h("span", { class: "chip-number", "aria-hidden": "true" }, mark.name),
    h("span", { class: "chip-label" }, mark.label ?? `[${values.map((value) => Math.round(value)).join(", ")}]`),
  );
  button.addEventListener("click", () => pin(mark.id));
  return button;
}

function overlay(mark, names) {
  const percent = (value) => `${(value / SCALE) * 100}%`;
  const tag = h("span", { class: "tag" }, mark.name, names && mark.label ? h("span", { class: "tag-label" }, ` ${mark.label}`) : null);
  const props = { data: { mark: mark.id }, "aria-hidden": "true" };
  if (mark.shape.kind === "point") {
    const [x, y] = mark.shape.at;
    return h("div", { class: `mark is-point of-${mark.kind} colour-${mark.colour}`, style: { left: percent(x), top: percent(y) }, ...props }, tag);
  }
  const [x1, y1, x2, y2] = mark.shape.corners;
  // A tag stands on its box; where there is no room above, in it; at the right border it ends with the box.
  const place = `${y1 < 90 ? " tag-inside" : ""}${x1 > 700 ? " tag-right" : ""}`;
  const style = { left: percent(x1), top: percent(y1), width: percent(x2 - x1), height: percent(y2 - y1) };
  return h("div", { class: `mark is-box of-${mark.kind} colour-${mark.colour}${place}`, style, ...props }, tag);
}

// ---- lighting up together

let pinned = null;

/** Lights up every place of the mark under the pointer or the focus. Called once. */
export function linkMarks(root) {
  const from = (event) => event.target.closest?.("[data-mark]")?.dataset.mark ?? under(event);
  const light = (event) => show(from(event) ?? pinned);
  for (const name of ["pointerover", "pointermove", "focusin"]) root.addEventListener(name, light);
  for (const name of ["pointerleave", "focusout"]) root.addEventListener(name, () => show(pinned));
}

function pin(id) {
  pinned = pinned === id ? null : id;
  for (const element of document.querySelectorAll(".chip[data-mark]")) {
    element.setAttribute("aria-pressed", String(element.dataset.mark === pinned));
  }
  show(pinned ?? id);
}

// The smallest mark that the pointer is in. Marks let it through, so that the picture below them can be pressed.
function under(event) {
  const marks = event.target.closest?.(".stage")?.querySelectorAll(".mark") ?? [];
  let found = null;
  let smallest = Infinity;
  for (const mark of marks) {
    const { left, right, top, bottom } = mark.getBoundingClientRect();
    const isIn = left <= event.clientX && event.clientX <= right && top <= event.clientY && event.clientY <= bottom;
    const area = (right - left) * (bottom - top);
    if (isIn && area < smallest) [found, smallest] = [mark.dataset.mark, area];
  }
  return found;
}

let lit = null;

function show(id) {
  if (id === lit && (id === null || document.querySelector(".is-lit"))) return;
  lit = id;
  for (const element of document.querySelectorAll(".is-lit")) element.classList.remove("is-lit");
  for (const element of document.querySelectorAll(".has-lit")) element.classList.remove("has-lit");
  if (id === null) return;
  for (const element of document.querySelectorAll(`[data-mark="${CSS.escape(id)}"]`)) {
    element.classList.add("is-lit");
    element.closest(".stage")?.classList.add("has-lit");
  }
}
