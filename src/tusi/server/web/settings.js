// What a person has set, kept in localStorage; and the API key, kept for this tab or, if asked to, for this browser.

const PLACE = "tusi.settings";
const KEY_PLACE = "tusi.key";
const DRAFTS = "tusi.draft.";

const DEFAULTS = {
  language: null, // null: the browser's
  theme: "auto", // auto, light, dark
  temperature: null, // null: what the model's makers recommend
  thinking: "on", // on, off, budget
  budget: 2048,
  maxTokens: null,
  system: "",
  model: null,
  tools: {}, // name: whether it is on; one that is not named is on
};

const listeners = new Set();
let values = { ...DEFAULTS, ...stored() };

/** The settings as they stand; a value, not to be changed. */
export function settings() {
  return values;
}

/** Changes some, keeps them, and tells those who listen. */
export function change(changes) {
  values = { ...values, ...changes };
  keep("localStorage", PLACE, JSON.stringify(values));
  for (const listener of listeners) listener(values);
}

export function onChange(listener) {
  listeners.add(listener);
}

export function apiKey() {
  return read("sessionStorage", KEY_PLACE) ?? read("localStorage", KEY_PLACE) ?? "";
}

export function setApiKey(key, remember) {
  keep("sessionStorage", KEY_PLACE, key);
  keep("localStorage", KEY_PLACE, remember ? key : null);
}

/** What was typed and not sent yet; written at once at every key, as a reload does not wait. */
export function draft(conversation) {
  return read("localStorage", DRAFTS + conversation) ?? "";
}

export function setDraft(conversation, text) {
  keep("localStorage", DRAFTS + conversation, text || null);
}

function stored() {
  try {
    const value = JSON.parse(read("localStorage", PLACE) ?? "{}");
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

// A browser may forbid both places; the page then works until it is closed.
function read(place, name) {
  try {
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

function keep(place, name, value) {
  try {
    if (value === null) window[place].removeItem(name);
    else window[place].setItem(name, value);
  } catch {
    // full or forbidden
  }
}
