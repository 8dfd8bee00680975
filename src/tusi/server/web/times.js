// Moments that a text names: "00:00:03.50", "1:07", "3.5 s", "3.5秒", {"start": 3.5}. Out: where they stand, in seconds.

const CLOCK = String.raw`(?:(\d{1,2}):)?([0-5]?\d):([0-5]\d(?:\.\d{1,3})?)(?![\d:])`;
const SECONDS = String.raw`(\d{1,5}(?:\.\d{1,3})?)\s?(?:seconds?\b|secs?\b|s\b|秒)`;
const FIELD = String.raw`"(?:start|end|time|timestamp|start_time|end_time|begin)"\s*:\s*(\d{1,5}(?:\.\d{1,3})?)(?=\s*[,}\]])`;
const MOMENT = new RegExp(String.raw`(?<![\d:.])(?:${CLOCK}|${SECONDS})|${FIELD}`, "g");

/** [{begin, end, seconds}], in order; only moments within a video of this length (in seconds). */
export function findTimes(text, duration = Infinity) {
  const found = [];
  for (const match of text.matchAll(MOMENT)) {
    const [whole, hours, minutes, seconds, bare, field] = match;
    const value = field ?? bare;
    const total = value === undefined ? Number(hours ?? 0) * 3600 + Number(minutes) * 60 + Number(seconds) : Number(value);
    if (total > duration + 0.5) continue;
    // Of "start": 3.5 only the number is the place to press.
    const begin = field === undefined ? match.index : match.index + whole.length - field.length;
    found.push({ begin, end: match.index + whole.length, seconds: total });
  }
  return found;
}

/** 67.5 becomes 1:07.5. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const hours = Math.floor(tenths / 36000);
  const minutes = Math.floor((tenths % 36000) / 600);
  const rest = (tenths % 600) / 10;
  const shown = rest.toFixed(tenths % 10 ? 1 : 0).padStart(tenths % 10 ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${shown}` : `${minutes}:${shown}`;
}
