// What an answer points at: the boxes it zoomed into (A, B, ...) and the boxes and points it ends on (1, 2, ...), each with
// a colour and the picture it is in. Pure.

import { findPlaces, isInside, zoomBox } from "./boxes.js";
import { answerText } from "./answer.js";

/** As many colours as style.css knows (.colour-0 ...): Okabe and Ito's set, told apart by every eye. */
export const NUM_COLOURS = 7;

/**
 * {marks, places} of an answer. A mark: {id, kind: "zoom" | "answer", name, colour, shape, picture, label, call};
 * picture is an index into the conversation's pictures. places: where in the answer's text shapes stand, each with the
 * marks that it made (none if a later one replaced it).
 *
 * pictures: those before the answer, see wire.picturesOf. latest: index of the first picture of the newest message that
 * has any; a box of which the answer does not say the picture is in that one.
 */
export function marksOf(answer, pictures, latest) {
  const zooms = answer.turns.flatMap((turn, t) =>
    turn.calls.map((call, c) => zoomMark(answer, call, `${t}-${c}`, pictures.length)).filter((mark) => mark !== null),
  );
  zooms.forEach((mark, i) => Object.assign(mark, { name: letters(i), colour: i % NUM_COLOURS }));
  const places = !pictures.length ? [] : findPlaces(answerText(answer), pictures.length, answer.status === "streaming");
  const said = [];
  for (const place of places) {
    const marks = place.final ? place.shapes.map((shape) => answerMark(answer, shape, said, zooms.length, latest)) : [];
    place.marks = marks.filter((mark) => mark.picture < pictures.length);
  }
  return { marks: [...zooms, ...places.flatMap((place) => place.marks)], places };
}

/** 0, 1, ... as A, B, ..., Z, AA, AB, ... */
export function letters(index) {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}

/** The marks of one picture that can be drawn into it. */
export function drawable(marks, picture) {
  return marks.filter((mark) => mark.picture === picture && isInside(mark.shape));
}

function zoomMark(answer, call, key, numPictures) {
  const asked = zoomBox(call.arguments);
  const corners = call.origin?.bbox_2d ?? asked?.corners;
  const picture = call.origin?.img_idx ?? asked?.imgIdx ?? (numPictures === 1 ? 0 : null);
  if (!corners || picture === null || call.status === "error" || picture >= numPictures) return null;
  const shape = { kind: "box", corners, label: asked?.label ?? null, imgIdx: picture };
  return { id: `${answer.id}:${key}`, kind: "zoom", shape, picture, label: shape.label, call: call.id };
}

function answerMark(answer, shape, said, offset, latest) {
  const mark = {
    id: `${answer.id}:a${said.length}`,
    kind: "answer",
    name: String(said.length + 1),
    colour: (offset + said.length) % NUM_COLOURS,
    shape,
    picture: shape.imgIdx ?? latest,
    label: shape.label,
    call: null,
  };
  said.push(mark);
  return mark;
}
