// A call of a tool, in its place among the thoughts: what was asked, where it looked, what came back.

import { h, icon, setChildren } from "./dom.js";
import { duration, t } from "./i18n.js";
import { stage } from "./picture.js";

/** context: {record(id), pictures, open(pictures, at)}. mark: the box that a zoom looked at, or null. */
export class ToolView {
  #shown = "";

  constructor() {
    this.element = h("section", { class: "tool" });
  }

  update(call, mark, context) {
    const sizes = (call.result ?? []).map((part) => (part.type === "media" ? context.record(part.media)?.width : null));
    const state = JSON.stringify([call, mark, context.pictures, sizes]);
    if (state === this.#shown) return;
    this.#shown = state;
    const isOpen = this.element.querySelector("details")?.open ?? false;
    this.element.className = `tool is-${call.status}${mark ? ` colour-${mark.colour}` : ""}`;
    this.element.setAttribute("aria-busy", String(call.status === "running"));
    setChildren(this.element, [header(call, mark), body(call, mark, context), raw(call, isOpen)]);
  }
}

function header(call, mark) {
  const badge = mark
    ? h("span", { class: "badge", data: { mark: mark.id } }, mark.name)
    : h("span", { class: "badge is-plain" }, icon(ICON[call.name] ?? "tool"));
  const box = mark ? h("code", { class: "tool-box" }, `[${mark.shape.corners.map((value) => Math.round(value)).join(", ")}]`) : null;
  const took = call.took >= 1000 ? h("span", { class: "tool-took" }, duration(call.took)) : null;
  return h("header", { class: "tool-head" }, badge, h("span", { class: "tool-title" }, title(call, mark)), box, took);
}

const ICON = { image_zoom_in_tool: "search", image_search: "image", knowledge_search: "search", calculator: "tool" };

function title(call, mark) {
  const given = readArguments(call.arguments);
  switch (call.name) {
    case "image_zoom_in_tool": {
      const label = mark?.label ?? given.label;
      return typeof label === "string" && label ? t("zoomLabel", { label }) : t("zoom");
    }
    case "image_search":
      return t("searchPictures");
    case "knowledge_search":
      return typeof given.query === "string" ? t("searchText", { query: given.query }) : t("toolCall", { name: call.name });
    case "calculator":
      return t("calculated");
    default:
      return t("toolCall", { name: call.name });
  }
}

function readArguments(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

function body(call, mark, context) {
  if (call.status === "running") return h("p", { class: "tool-note is-running" }, mark ? t("zooming") : t("toolRunning", { name: call.name }), mark ? looking(mark, context) : null);
  if (call.status === "unanswered") return h("p", { class: "tool-note" }, t("toolUnanswered"));
  const media = call.result.filter((part) => part.type === "media").map((part) => context.record(part.media));
  const texts = call.result.filter((part) => part.type !== "media").map((part) => part.text ?? JSON.stringify(part.value));
  const given = readArguments(call.arguments);
  if (call.name === "calculator" && call.status === "done") {
    return h("p", { class: "tool-sum" }, h("code", {}, String(given.expression ?? call.arguments)), " = ", h("strong", {}, texts.join("\n")));
  }
  return [
    mark && media.length ? zoomed(mark, media, context) : found(media, context),
    texts.map((text) => h("p", { class: `tool-text${call.status === "error" ? " is-error" : ""}`, tabindex: text.length > 600 ? "0" : null }, text)),
  ];
}

// The picture with the box in it beside what the box holds, in one colour.
function zoomed(mark, media, context) {
  const crops = media.map((record, at) => {
    const alt = t("cropOf", { n: mark.name, label: mark.label ?? "" });
    if (record === undefined) return h("span", { class: "lost" }, t("lost"));
    const open = () => context.open([{ record, marks: [], alt, title: alt }], 0);
    const element = stage(record, { alt, onOpen: open, openLabel: alt });
    element.dataset.mark = mark.id;
    element.classList.add("is-crop");
    return h("figure", { class: "zoom-crop", data: { crop: String(at) } }, element);
  });
  return h("div", { class: "zoom" }, looking(mark, context), crops);
}

function looking(mark, context) {
  const record = context.picture(mark.picture);
  if (record === undefined) return null;
  const label = t("whereFrom", { n: mark.picture + 1 });
  const open = () => context.open([{ record, marks: [mark], alt: label, title: t("viewer", { n: mark.picture + 1 }) }], 0);
  return h("figure", { class: "zoom-from" }, stage(record, { alt: label, marks: [mark], names: false, spot: true, onOpen: open, openLabel: label }));
}

function found(media, context) {
  const pictures = media.filter((record) => record !== undefined).map((record, at) => ({ record, marks: [], alt: t("picture", { n: at + 1 }), title: t("picture", { n: at + 1 }) }));
  if (!pictures.length) return null;
  return h(
    "div",
    { class: "found" },
    pictures.map(({ record, alt }, at) => stage(record, { alt, onOpen: () => context.open(pictures, at), openLabel: alt })),
  );
}

function raw(call, isOpen) {
  let text = call.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 1).replace(/\n\s*/g, " ");
  } catch {
    // as the model wrote it
  }
  return h("details", { class: "raw", open: isOpen }, h("summary", {}, t("arguments")), h("pre", { tabindex: "0" }, h("code", {}, `${call.name} ${text}`)));
}
