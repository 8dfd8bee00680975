// The tree of markdown.js as nodes. Whatever a model wrote becomes text nodes and a closed list of elements.

import { copyText, h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { parseMarkdown } from "./markdown.js";
import { texToMathml } from "./math.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const MATH_TAGS = new Set(
  "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd".split(" "),
);
const MATH_ATTRIBUTES = new Set(["display", "width", "accent", "stretchy", "linethickness", "class", "linebreak"]);

/**
 * Shows a text that grows. Blocks whose source has not changed keep their nodes, so that selections, focus and pictures
 * in them stay.
 *
 * hooks: {mark(index) -> node for a mark of the text, or null; time(node) -> node for a moment in a video}.
 */
export class MarkdownView {
  #blocks = [];
  #shown = null;

  constructor(hooks = {}) {
    this.element = h("div", { class: "prose" });
    this.hooks = hooks;
  }

  /** options: parseInline's. key: whatever else the nodes depend on; they are made anew when it changes. */
  update(text, options = {}, key = "") {
    const all = `${key}\u0000${options.duration}\u0000${text}`;
    if (all === this.#shown) return;
    this.#shown = all;
    const blocks = parseMarkdown(text, options);
    blocks.forEach((block, at) => {
      const shown = this.#blocks[at];
      const wanted = `${key}\u0000${block.type}\u0000${block.source}`;
      if (shown?.wanted === wanted) return;
      const node = renderBlock(block, this.hooks);
      if (shown) shown.node.replaceWith(node);
      else this.element.append(node);
      this.#blocks[at] = { wanted, node };
    });
    while (this.#blocks.length > blocks.length) this.#blocks.pop().node.remove();
  }
}

function renderBlock(block, hooks) {
  const inside = (nodes) => nodes.map((node) => renderInline(node, hooks));
  switch (block.type) {
    case "heading":
      return h(`h${Math.min(block.level + 2, 6)}`, {}, inside(block.inline));
    case "rule":
      return h("hr");
    case "code":
      return codeBlock(block);
    case "math":
      return h("div", { class: "math-block" }, renderMath(block.tex, true));
    case "quote":
      return h("blockquote", {}, block.blocks.map((inner) => renderBlock(inner, hooks)));
    case "list":
      return list(block, hooks);
    case "table":
      return table(block, inside);
    default: {
      const children = inside(block.inline);
      const isOwn = children.some((child) => child instanceof HTMLElement && child.matches("figure, details"));
      return h(isOwn ? "div" : "p", isOwn ? { class: "paragraph" } : {}, children);
    }
  }
}

function renderInline(node, hooks) {
  const inside = () => node.children.map((child) => renderInline(child, hooks));
  switch (node.type) {
    case "text":
      return document.createTextNode(node.text);
    case "break":
      return h("br");
    case "code":
      return h("code", {}, node.text);
    case "em":
    case "strong":
    case "del":
      return h(node.type, {}, inside());
    case "link":
      return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" }, inside());
    case "math":
      return renderMath(node.tex, false);
    case "mark":
      return hooks.mark?.(node.index) ?? document.createTextNode("");
    case "time":
      return hooks.time?.(node) ?? document.createTextNode(node.text);
    default:
      return document.createTextNode(node.text ?? "");
  }
}

/** A block of code with a button that copies it. */
function codeBlock({ lang, text }) {
  const button = h("button", { type: "button", class: "icon-button copy-code", "aria-label": t("codeCopy"), title: t("codeCopy") }, icon("copy"));
  button.addEventListener("click", async () => {
    if (await copyText(text)) button.classList.add("is-done");
    setTimeout(() => button.classList.remove("is-done"), 1500);
  });
  return h("div", { class: "code-block" }, lang ? h("span", { class: "code-lang" }, lang) : null, button, h("pre", { tabindex: "0" }, h("code", {}, text)));
}

function list({ ordered, start, items }, hooks) {
  const props = ordered && start !== 1 ? { start: String(start) } : {};
  return h(ordered ? "ol" : "ul", props, items.map(({ blocks }) => listItem(blocks, hooks)));
}

function listItem(blocks, hooks) {
  const [first, ...rest] = blocks;
  if (first?.type !== "paragraph") return h("li", {}, blocks.map((block) => renderBlock(block, hooks)));
  const task = /^\[([ xX])\] /.exec(first.inline[0]?.type === "text" ? first.inline[0].text : "");
  const inline = task ? [{ type: "text", text: first.inline[0].text.slice(4) }, ...first.inline.slice(1)] : first.inline;
  const box = task ? h("input", { type: "checkbox", disabled: true, checked: task[1] !== " " }) : null;
  return h(
    "li",
    task ? { class: "task" } : {},
    box,
    inline.map((node) => renderInline(node, hooks)),
    rest.map((block) => renderBlock(block, hooks)),
  );
}

function table({ align, head, rows }, inside) {
  const cell = (tag) => (nodes, at) => h(tag, align[at] ? { class: `align-${align[at]}` } : {}, inside(nodes));
  return h(
    "div",
    { class: "table-scroll", tabindex: "0" },
    h("table", {}, h("thead", {}, h("tr", {}, head.map(cell("th")))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell("td")))))),
  );
}

function renderMath(tex, display) {
  const math = mathNode(texToMathml(tex, display));
  math.setAttribute("title", tex);
  return math;
}

function mathNode(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  const [tag, attributes, ...children] = tree;
  const element = document.createElementNS(MATHML, MATH_TAGS.has(tag) ? tag : "mrow");
  for (const [name, value] of Object.entries(attributes)) if (MATH_ATTRIBUTES.has(name)) element.setAttribute(name, value);
  element.append(...children.map(mathNode));
  return element;
}
