import assert from "node:assert/strict";
import { test } from "node:test";
import { parseInline, safeUrl } from "../web/inline.js";
import { parseMarkdown } from "../web/markdown.js";

// A tree in short: strong(text), code`x`.
function short(node) {
  const inside = () => node.children.map(short).join("");
  switch (node.type) {
    case "text": return node.text;
    case "break": return "|";
    case "code": return `\`${node.text}\``;
    case "math": return `$${node.tex}$`;
    case "mark": return `<${node.index}>`;
    case "time": return `@${node.seconds}`;
    case "link": return `link(${inside()} ${node.href})`;
    default: return `${node.type}(${inside()})`;
  }
}
const line = (text, options) => parseInline(text, options).map(short).join("");
function outline(block) {
  const text = (nodes) => nodes.map(short).join("");
  switch (block.type) {
    case "heading": return `h${block.level}:${text(block.inline)}`;
    case "paragraph": return `p:${text(block.inline)}`;
    case "code": return `code[${block.lang}]:${block.text.replace(/\n/g, "|")}`;
    case "math": return `math:${block.tex}`;
    case "quote": return `quote(${block.blocks.map(outline).join(" ")})`;
    case "list": return `${block.ordered ? `ol${block.start}` : "ul"}(${block.items.map((item) => item.blocks.map(outline).join(" ")).join("; ")})`;
    case "table": return `table(${[block.head, ...block.rows].map((row) => row.map(text).join(",")).join("; ")})`;
    default: return block.type;
  }
}
const blocks = (text) => parseMarkdown(text).map(outline);

test("emphasis, code, strikes", () => {
  assert.equal(line("**bold** *it* ***both*** ~~gone~~ `a*b*` snake_case_name __b__"), "strong(bold) em(it) em(strong(both)) del(gone) `a*b*` snake_case_name strong(b)");
  assert.equal(line("**重点：**后文，*强调*。"), "strong(重点：)后文，em(强调)。");
  assert.equal(line("2 * 3 * 4, a*b, **open"), "2 * 3 * 4, a*b, **open");
});

test("links go to the web or nowhere", () => {
  assert.equal(line("[a](https://x.org/b_(c))"), "link(a https://x.org/b_(c))");
  assert.equal(line("[a](javascript:alert(1)) <javascript:x>"), "[a](javascript:alert(1)) <javascript:x>");
  assert.equal(line("https://x.org/a_b."), "link(https://x.org/a_b https://x.org/a_b).");
  for (const bad of ["javascript:1", "data:text/html,x", "vbscript:x", "file:///x", "/x", "JaVaScRiPt:1"]) assert.equal(safeUrl(bad), null);
});

test("markup is text", () => {
  const text = "<script>x</script> <img onerror=y>";
  assert.equal(line(text), text);
});

test("maths and money", () => {
  assert.equal(line("$x^2$ and \\(y\\), but $5 and $6"), "$x^2$ and $y$, but $5 and $6");
  assert.deepEqual(blocks("$$\na = b\n$$"), ["math:a = b"]);
});

test("times only where there is a video", () => {
  assert.equal(line("at 0:05 **0:07**"), "at 0:05 strong(0:07)");
  assert.equal(line("at 0:05 **0:07**", { duration: 10 }), "at @5 strong(@7)");
});

test("blocks", () => {
  assert.deepEqual(blocks("# A\ntext\nmore\n\n---\n> q\n> r\n\n```py\nx = 1\n\ny\n```\nend"), [
    "h1:A", "p:text|more", "rule", "quote(p:q|r)", "code[py]:x = 1||y", "p:end",
  ]);
  assert.deepEqual(blocks("1. a\n2. b\n   - c\n   - d\n\n3. e"), ["ol1(p:a; p:b ul(p:c; p:d); p:e)"]);
  assert.deepEqual(blocks("| a | b |\n|---|:-:|\n| 1 | `x|y` |\n| 2 |\n\nend"), ["table(a,b; 1,`x|y`; 2,)", "p:end"]);
  assert.deepEqual(blocks("```\nopen"), ["code[]:open"]);
});

test("nothing that is written is lost", () => {
  const texts = ["**a", "[x](", "`", "```", "$", "$$", "| a |", "- ", "1.", "> ", "#", "&amp;x", "\\", "a\\*b", "<", "![", "~~", "***", "_ _"];
  for (const one of texts) {
    for (const other of texts) {
      const text = `qq ${one} ww ${other} ee`;
      const shown = JSON.stringify(parseMarkdown(text));
      for (const word of ["qq", "ww", "ee"]) assert.ok(shown.includes(word), `${word} of ${text}`);
    }
  }
});

test("blocks that are complete do not change while more comes", () => {
  const text = "# T\n\none **two**\n\n- a\n- b\n\n```js\nx\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nlast words";
  const whole = parseMarkdown(text);
  for (let length = 1; length < text.length; length += 1) {
    const now = parseMarkdown(text.slice(0, length));
    for (const [at, block] of now.slice(0, -1).entries()) assert.deepEqual(block, whole[at], text.slice(0, length));
  }
});

test("hostile text takes no time", () => {
  for (const unit of ["*", "_a ", "[", "[](", "`", "> ", "- ", "$", "\\(", "|", "~~", "![a](", "**a ", "<", "&"]) {
    parseMarkdown(unit.repeat(20_000));
  }
  parseMarkdown("> ".repeat(3000) + "x");
  parseMarkdown(Array.from({ length: 2000 }, (_, i) => `${" ".repeat(i % 60)}- x`).join("\n"));
});
