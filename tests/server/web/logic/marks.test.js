import assert from "node:assert/strict";
import { test } from "node:test";
import { drawable, letters, marksOf } from "../web/marks.js";

const turn = (content, calls = []) => ({ reasoning: "", content, calls });
const zoom = (id, origin, status = "done", text = '{"bbox_2d": [1, 2, 3, 4], "label": "tag"}') => ({
  id, name: "image_zoom_in_tool", arguments: text, origin, status,
});
const answer = (...turns) => ({ id: "a", status: "done", turns });
const pictures = [{ media: "m0", node: "u" }, { media: "m1", node: "u" }];

test("zooms have letters, what an answer points at has numbers, and each a colour of its own", () => {
  const said = answer(
    turn("", [zoom("x", { img_idx: 0, bbox_2d: [0, 0, 500, 500] }), zoom("y", { img_idx: 1, bbox_2d: [1, 1, 9, 9] })]),
    turn('Picture 2: [{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7, 8]}]'),
  );
  const { marks } = marksOf(said, pictures, 0);
  assert.deepEqual(
    marks.map(({ kind, name, colour, picture, label }) => [kind, name, colour, picture, label]),
    [["zoom", "A", 0, 0, "tag"], ["zoom", "B", 1, 1, "tag"], ["answer", "1", 2, 1, "cat"], ["answer", "2", 3, 1, null]],
  );
  assert.equal(new Set(marks.map((mark) => mark.id)).size, 4);
  assert.deepEqual(drawable(marks, 1).map((mark) => mark.name), ["B", "1", "2"]);
});

test("where the server says a tool looked counts, not what was asked for", () => {
  const call = zoom("x", { img_idx: 1, bbox_2d: [10, 20, 1000, 400] }, "done", '{"bbox_2d": [10, 20, 1500, 400]}');
  const { marks } = marksOf(answer(turn("", [call])), pictures, 0);
  assert.deepEqual([marks[0].picture, marks[0].shape.corners], [1, [10, 20, 1000, 400]]);
});

test("calls that failed or looked at nothing have no mark", () => {
  const calls = [zoom("x", null, "error"), zoom("y", null, "done", "{}"), { ...zoom("z", null), arguments: '{"expression": "1"}' }];
  assert.deepEqual(marksOf(answer(turn("", calls)), pictures, 0).marks, []);
});

test("boxes without a picture to draw them in are text", () => {
  const said = answer(turn("[1, 2, 3, 4]"));
  assert.deepEqual(marksOf(said, [], 0), { marks: [], places: [] });
  const other = answer(turn('{"bbox_2d": [1, 2, 3, 4], "img_idx": 7}'));
  assert.deepEqual(marksOf(other, pictures, 0).marks, []);
});

test("an answer that does not say which picture means the newest message's first", () => {
  assert.equal(marksOf(answer(turn("[1, 2, 3, 4]")), pictures, 1).marks[0].picture, 1);
});

test("boxes outside are marks that cannot be drawn", () => {
  const { marks } = marksOf(answer(turn("[1, 2, 3000, 4]")), pictures.slice(1), 0);
  assert.equal(marks.length, 1);
  assert.deepEqual(drawable(marks, 0), []);
});

test("letters go on after Z", () => {
  assert.deepEqual([0, 25, 26, 27, 51, 52, 701, 702].map(letters), ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
});
