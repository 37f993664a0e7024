// Labels as bars, with the thresholds from which on they are given.

import { fill, foreign, make } from "./dom.js";
import { formatCount, formatScore, words } from "./language.js";

const FEW = 12;

// labels: [{label, score, threshold (or null), given}], in the order to show. open: all of them; onToggle: the user asks.
export function scoreBars(labels, { open, onToggle }) {
  // what is given is always seen
  const shown = open ? labels : labels.filter((entry, place) => place < FEW || entry.given);
  const list = make("ol", { class: "bars", "aria-label": words("bars.scores") }, ...shown.map(scoreBar));
  return make("div", {}, thresholdKey(labels), list, moreButton(labels, shown, open, onToggle));
}

function scoreBar({ label, score, threshold, given }) {
  const track = make("span", { class: "track", "aria-hidden": "true" }, filled(score));
  if (threshold !== null) {
    const mark = make("span", { class: "threshold" });
    mark.style.setProperty("--at", Math.min(threshold, 1));
    track.append(mark);
  }
  const reads = [
    threshold === null ? null : `, ${words("bars.threshold", { value: formatScore(Math.min(threshold, 1)) })}`,
    given ? `, ${words("bars.given")}` : null,
  ];
  return make("li", { class: given ? "given" : null },
    make("span", { class: "name" }, foreign(label), given ? make("span", { class: "check", "aria-hidden": "true" }, " ✓") : null),
    track,
    make("span", { class: "value" }, formatScore(score), make("span", { class: "unseen" }, ...reads.filter(Boolean))));
}

function filled(share) {
  const bar = make("span", { class: "filled" });
  bar.style.setProperty("--share", share);
  return bar;
}

function thresholdKey(labels) {
  const own = labels.filter(entry => entry.threshold !== null);
  if (own.length === 0) return null;
  const sentence = own.length === 1 && labels.length > 1
    ? fill(words("bars.threshold_one"), "label", own[0].label)
    : words("bars.threshold_key");
  return make("p", { class: "soft small key" }, make("span", { class: "threshold-sign", "aria-hidden": "true" }), sentence);
}

function moreButton(labels, shown, open, onToggle) {
  if (shown.length === labels.length && !(open && labels.length > FEW)) return null;
  const text = open ? words("bars.fewer") : words("bars.more", { count: formatCount(labels.length) });
  return make("button", { type: "button", class: "link", "aria-expanded": String(open), onclick: onToggle }, text);
}

// How often each label was given. counts: [[label or null, number], ...], largest first.
export function countBars(counts, total) {
  const bars = counts.map(([label, number]) =>
    make("li", {},
      make("span", { class: "name" }, label === null ? words("file.none_given") : foreign(label)),
      make("span", { class: "track", "aria-hidden": "true" }, filled(number / Math.max(1, total))),
      make("span", { class: "value" }, formatCount(number))));
  return make("ol", { class: "bars" }, ...bars);
}
