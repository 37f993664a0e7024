// The language of the page: the browser's own, or the one that was chosen in this tab.

import { STRINGS } from "./strings.js";

const STORED = "fullbake-language";

let current = initial();

function initial() {
  const chosen = sessionStorage.getItem(STORED);
  if (chosen in STRINGS) return chosen;
  const known = navigator.languages.map(tag => tag.split("-")[0]).find(name => Object.hasOwn(STRINGS, name));
  return known ?? "en";
}

export function languageTag() {
  return current === "zh" ? "zh-Hans" : "en";
}

export function switchLanguage() {
  current = current === "zh" ? "en" : "zh";
  sessionStorage.setItem(STORED, current);
}

// The words of a key. A missing key is a fault of the page, so it shows as the key itself.
export function words(key, values = {}) {
  const text = STRINGS[current][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

export function formatCount(value) {
  return new Intl.NumberFormat(languageTag()).format(value);
}

// A score as a percentage. 99.97% is not shown as 100.0%, nor 0.02% as 0.0%.
export function formatScore(value) {
  if (value > 0.999 && value < 1) return ">99.9%";
  if (value < 0.001 && value > 0) return "<0.1%";
  return `${(100 * value).toFixed(1)}%`;
}

// An effect in percentage points, with its sign.
export function formatEffect(value) {
  const points = (100 * value).toFixed(1);
  return Number(points) === 0 ? "0.0" : `${value > 0 ? "+" : "−"}${points.replace("-", "")}`;
}

export function formatSeconds(seconds) {
  if (seconds < 60) return words("file.unit.seconds", { count: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return words("file.unit.minutes", { count: Math.round(seconds / 60) });
  return words("file.unit.hours", { count: (seconds / 3600).toFixed(1) });
}
