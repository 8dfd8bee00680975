// Small helpers to build nodes. Text is always text: nothing here takes markup.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  add: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M6 9l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  export: "M12 4v11M8 11l4 4 4-4M5 19h14",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9.2a2.8 2.8 0 100 5.6 2.8 2.8 0 000-5.6z",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  left: "M15 6l-6 6 6 6",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5.5 12h.01M12 12h.01M18.5 12h.01",
  right: "M9 6l6 6-6 6",
  search: "M10.5 4a6.5 6.5 0 100 13 6.5 6.5 0 000-13zM15.5 15.5L20 20",
  send: "M12 19V5M6 11l6-6 6 6",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  stop: "M7 7h10v10H7z",
  tool: "M14.5 5.5a4 4 0 015 5L17 8.5 15.5 7zM14 10l-8.5 8.5M12 6.8L4.8 14",
  again: "M19 12a7 7 0 11-2.2-5.1M19 4v4h-4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/**
 * An element. props: attributes (true: present, false or null: absent), `class`, `on` ({event: listener}), `style`
 * ({property: value}), `data` ({name: value}). children: nodes, texts, lists of these; null is left out.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  apply(element, props);
  element.append(...flat(children));
  return element;
}

/** A drawing of one line, for the eye only. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows a drawing and is named by a text. */
export function iconButton(name, label, onClick, props = {}) {
  const { class: extra, ...others } = props;
  const classes = `icon-button${extra ? ` ${extra}` : ""}`;
  return h("button", { type: "button", class: classes, "aria-label": label, title: label, on: { click: onClick }, ...others }, icon(name));
}

/** Puts children in place of those that are there, moving none that stay. */
export function setChildren(element, children) {
  const wanted = flat(children);
  wanted.forEach((child, at) => {
    const node = typeof child === "string" ? document.createTextNode(child) : child;
    if (element.childNodes[at] !== node) element.insertBefore(node, element.childNodes[at] ?? null);
  });
  while (element.childNodes.length > wanted.length) element.lastChild.remove();
}

/** Copies a text; true if it worked. Plain-HTTP addresses have no clipboard interface, so there is the old way too. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "offscreen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    return worked;
  }
}

/** Saves a blob as a file. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function apply(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}
