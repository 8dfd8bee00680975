import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, findTimes } from "../web/times.js";

const found = (text, duration) => findTimes(text, duration).map(({ begin, end, seconds }) => [text.slice(begin, end), seconds]);

test("moments as models write them", () => {
  assert.deepEqual(found("at 00:00:03.50 and 1:07, then 3.5 s, 4s, 12 seconds, 第 5 秒"), [
    ["00:00:03.50", 3.5], ["1:07", 67], ["3.5 s", 3.5], ["4s", 4], ["12 seconds", 12], ["5 秒", 5],
  ]);
  assert.deepEqual(found('{"start": 3.5, "end": 12, "label": "x"}'), [["3.5", 3.5], ["12", 12]]);
  assert.deepEqual(found("从 01:02 到 01:10"), [["01:02", 62], ["01:10", 70]]);
});

test("what is no moment", () => {
  for (const text of ["16:9:4:3", "12:75", "a 3:1 lead", "5 sheep", "v1.2.3", "[1, 2]", '"bbox": [3, 5]', "10:5"]) {
    assert.deepEqual(found(text), [], text);
  }
});

test("moments after the end of the video are text", () => {
  assert.deepEqual(found("0:05 and 0:50", 10), [["0:05", 5]]);
});

test("clock", () => {
  assert.deepEqual([0, 7, 67.5, 3599.96, 3661].map(clock), ["0:00", "0:07", "1:07.5", "1:00:00", "1:01:01"]);
});
