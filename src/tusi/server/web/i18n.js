// The page's words in two languages. t("key", {name: value}) fills in {name}.

import { settings } from "./settings.js";
import { EN } from "./words_en.js";
import { ZH } from "./words_zh.js";

const WORDS = { en: EN, zh: ZH };

export const LANGUAGES = { en: "English", zh: "中文" };

/** The language shown: the one that was chosen, or the browser's. */
export function language() {
  const chosen = settings().language;
  if (chosen !== null && Object.hasOwn(WORDS, chosen)) return chosen;
  return (navigator.languages ?? [navigator.language]).some((name) => /^zh\b/i.test(name)) ? "zh" : "en";
}

export function t(key, values = {}) {
  const text = WORDS[language()][key] ?? EN[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

export function number(value, options = {}) {
  return new Intl.NumberFormat(language() === "zh" ? "zh-CN" : "en", options).format(value);
}

/** Seconds in words: "0.8 s", "12 s", "2 min 5 s". */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 9.95) return t("seconds", { n: number(seconds, { minimumFractionDigits: 1, maximumFractionDigits: 1 }) });
  const whole = Math.round(seconds);
  if (whole < 60) return t("seconds", { n: number(whole) });
  return t("minutes", { m: number(Math.floor(whole / 60)), s: number(whole % 60) });
}

/** "today", "yesterday" or a date. */
export function day(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - time) / 86_400_000);
  if (days <= 0) return t("today");
  if (days === 1) return t("yesterday");
  if (days <= 7) return t("thisWeek");
  return new Intl.DateTimeFormat(language() === "zh" ? "zh-CN" : "en", { year: "numeric", month: "long" }).format(time);
}
