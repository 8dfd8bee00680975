import assert from "node:assert/strict";
import { test } from "node:test";
import { Tree } from "../web/tree.js";

const node = (id, parent, created = 0) => ({ id, parent, created });
const ids = (nodes) => nodes.map((item) => item.id).join("");

test("an edit is a branch beside the old one, and both can be shown", () => {
  const tree = new Tree();
  for (const item of [node("a", null), node("b", "a"), node("c", "b")]) tree.add(item);
  assert.equal(ids(tree.path()), "abc");
  tree.add(node("x", null));
  assert.equal(ids(tree.path()), "x");
  tree.add(node("y", "x"));
  assert.deepEqual(tree.versions("a"), ["a", "x"]);
  tree.select("a");
  assert.equal(ids(tree.path()), "abc");
  assert.equal(ids(tree.path("y")), "xy");
});

test("what is read back from disk is the same tree, in any order", () => {
  const nodes = [node("a", null, 1), node("b", "a", 2), node("c", "a", 3), node("d", "b", 4)];
  for (const order of [nodes, [...nodes].reverse()]) {
    const tree = new Tree(order, { a: "b" });
    assert.equal(ids(tree.path()), "abd");
    assert.deepEqual(tree.versions("c"), ["b", "c"]);
    assert.equal(ids(new Tree(order).path()), "ac");
  }
});

test("nothing disappears: lost parents, unknown choices", () => {
  const tree = new Tree([node("a", "gone", 1), node("b", "a", 2)], { "": "unknown" });
  assert.equal(ids(tree.path()), "ab");
  assert.equal(ids(new Tree([]).path()), "");
});

test("a cycle ends", () => {
  const tree = new Tree([node("a", "b", 1), node("b", "a", 2)]);
  assert.ok(tree.path().length < 10);
  assert.ok(tree.path("a").length <= 100_000);
});
