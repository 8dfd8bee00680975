import assert from "node:assert/strict";
import { test } from "node:test";
import { findJson } from "../web/json.js";

const values = (text, isOpen) => findJson(text, isOpen).map(({ value }) => plain(value));
const plain = (value) =>
  value instanceof Map ? Object.fromEntries([...value].map(([k, v]) => [k, plain(v)])) : Array.isArray(value) ? value.map(plain) : value;

test("finds what is JSON among what is not", () => {
  assert.deepEqual(values('a [1, 2] b {"c": [true, null, "d"]} [x] {"e": 1'), [[1, 2], { c: [true, null, "d"] }]);
  assert.deepEqual(values("[1, 2,] [ ] {}"), [[], {}]);
  assert.deepEqual(values("[not [1] json]"), [[1]]);
});

test("says where it stands", () => {
  const text = "see [1, 2]!";
  const [{ begin, end, isCut }] = findJson(text);
  assert.equal(text.slice(begin, end), "[1, 2]");
  assert.equal(isCut, false);
});

test("reads what JSON.parse reads", () => {
  for (const value of [[1.5e3, -0.25, 0], ["\u00e9\n\"\\", "图"], { a: { b: [{ c: "" }] } }, [[[]]], [false]]) {
    for (const indent of [0, 2]) assert.deepEqual(values(JSON.stringify(value, null, indent)), [value]);
  }
  assert.deepEqual(values('{"__proto__": 1}'), [JSON.parse('{"__proto__": 1}')]);
});

test("refuses what JSON.parse refuses", () => {
  for (const text of ["[01]", "[+1]", "[.5]", "['a']", '["\n"]', '["\\x"]', "{a: 1}", "[NaN]", '{"a" 1}', "[tru]"]) {
    assert.deepEqual(values(text), [], text);
  }
});

test("of an open text, what is complete is found at every length", () => {
  const text = 'So: [{"b": [1, 2, 30], "l": "x\\"y"}, {"b": [4, 5], "ok": true}]';
  const found = [];
  for (let length = 0; length <= text.length; length += 1) {
    const last = JSON.stringify(values(text.slice(0, length), true)[0] ?? null);
    if (last !== found[found.length - 1]) found.push(last);
  }
  assert.deepEqual(found, [
    "null",
    '[{"b":[1]}]',
    '[{"b":[1,2]}]',
    '[{"b":[1,2,30]}]',
    '[{"b":[1,2,30],"l":"x\\"y"}]',
    '[{"b":[1,2,30],"l":"x\\"y"},{"b":[4]}]',
    '[{"b":[1,2,30],"l":"x\\"y"},{"b":[4,5]}]',
    '[{"b":[1,2,30],"l":"x\\"y"},{"b":[4,5],"ok":true}]',
  ]);
  assert.equal(findJson(text.slice(0, -1), true)[0].isCut, true);
  assert.equal(findJson(text, true)[0].isCut, false);
});

test("an open text that is not JSON is not made into some", () => {
  for (const text of ["a [b, ", "{x", "[1 2", "[", "{", '["a', "no"]) assert.deepEqual(findJson(text, true), [], text);
});

test("hostile text takes no time", () => {
  for (const text of ["[".repeat(200_000), '{"a":'.repeat(50_000), "[1,".repeat(60_000), '["'.repeat(60_000)]) {
    findJson(text);
    findJson(text, true);
  }
});
