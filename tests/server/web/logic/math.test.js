import assert from "node:assert/strict";
import { test } from "node:test";
import { texToMathml } from "../web/math.js";

const text = (tree) => (typeof tree === "string" ? tree : tree.slice(2).map(text).join(""));
const tags = (tree) => (typeof tree === "string" ? [] : [tree[0], ...tree.slice(2).flatMap(tags)]);

test("formulas as models write them", () => {
  assert.equal(text(texToMathml("\\frac{a}{b} \\times \\sqrt{x^2+1} \\le \\alpha_{10}")), "ab×x2+1≤α10");
  assert.ok(tags(texToMathml("\\frac{a}{b}")).includes("mfrac"));
  assert.ok(tags(texToMathml("x_1^2")).includes("msubsup"));
  assert.ok(tags(texToMathml("\\begin{cases} a & b \\\\ c & d \\end{cases}")).filter((tag) => tag === "mtr").length === 2);
  assert.equal(text(texToMathml("\\text{if } x")), "if\u00A0x");
});

test("what is not known is shown as it was written", () => {
  assert.equal(text(texToMathml("\\strange{x}")), "\\strangex");
});

test("nothing throws and nothing is endless", () => {
  const units = ["\\frac", "{", "}", "^", "_", "\\begin{matrix}", "\\end", "&", "\\\\", "\\sqrt[", "\\left(", "'", "\\text{", "$", "\\"];
  for (const one of units) for (const other of units) texToMathml(one + other + "x" + one);
  for (const unit of units) texToMathml(unit.repeat(3000));
});
