import assert from "node:assert/strict";
import { test } from "node:test";
import { findPlaces } from "../web/boxes.js";
import { withMarks } from "../web/placing.js";

const BOX = '{"bbox_2d": [1, 2, 30, 40]}';
const place = (text, isOpen = false) => {
  const { text: marked, kinds } = withMarks(text, findPlaces(text, 1, isOpen));
  return [marked.replace(/\uFDD0(\d+)\uFDD1/g, "<$1>").replace(/\n+/g, "|"), kinds];
};

test("a block of code with nothing else in it becomes a mark", () => {
  for (const fence of ["```json", "```", "~~~"]) {
    const end = fence.slice(0, 3);
    assert.deepEqual(place(`Here:\n${fence}\n[${BOX}]\n${end}\nDone.`), ["Here:|<0>|Done.", ["block"]]);
  }
});

test("a line of its own does too", () => {
  assert.deepEqual(place(`Here:\n\n${BOX}\n\nDone.`), ["Here:|<0>|Done.", ["block"]]);
  assert.deepEqual(place(`Here:\n[\n  ${BOX},\n  ${BOX}\n]\nDone.`), ["Here:|<0>|Done.", ["block"]]);
});

test("in a sentence it stays in its place", () => {
  assert.deepEqual(place(`The cat ${BOX}, here.`), ["The cat <0>, here.", ["inline"]]);
  assert.deepEqual(place(`The cat \`${BOX}\`, here.`), ["The cat <0>, here.", ["inline"]]);
  assert.deepEqual(place(`| cat | ${BOX} |`), ["| cat | <0> |", ["inline"]]);
});

test("code with more in it stays code", () => {
  const code = `\`\`\`python\nbox = ${BOX}\n\`\`\``;
  assert.deepEqual(place(code), [code.replace(/\n/g, "|"), [null]]);
  assert.deepEqual(place(`see \`a = ${BOX}\` there`), [`see \`a = ${BOX}\` there`, [null]]);
});

test("what a later list replaced stays text in a line", () => {
  assert.deepEqual(place(`First [9, 9, 99, 99].\n\n[${BOX}]`), ["First [9, 9, 99, 99].|<1>|", [null, "block"]]);
});

test("while it is written, the mark stands for all that is there", () => {
  const whole = `Two:\n\`\`\`json\n[${BOX}, ${BOX}]\n\`\`\`\n`;
  const states = new Set();
  for (let length = 8; length <= whole.length; length += 1) states.add(JSON.stringify(place(whole.slice(0, length), true)));
  const marked = [...states].filter((state) => state.includes("<0>"));
  assert.deepEqual(marked, ['["Two:|<0>|",["block"]]']);
  for (const state of states) assert.ok(!/[\uFDD0\uFDD1\uFFFD]/.test(state), state);
});

test("a text that has our marks in it is no mark", () => {
  assert.deepEqual(place("a \uFDD00\uFDD1 b"), ["a \uFFFD0\uFFFD b", []]);
});
