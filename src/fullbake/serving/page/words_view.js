// Which words mattered: the text with each word shaded by its effect on the score of one label.

import { byId, foreign, make, setChildren, visible } from "./dom.js";
import { formatEffect, formatScore, words } from "./language.js";

const LEAST = 0.001;
const TABLE_ROWS = 12;

export class WordsView {
  constructor() {
    this.found = null;
    this.label = 0;
  }

  clear() {
    this.found = null;
    this.render();
  }

  // found: what /v1/explain answers. texts: the text, or both texts of a pair, as they were sent.
  show(found, texts) {
    this.found = found;
    this.label = 0;
    this.texts = texts.map(text => Array.from(text)); // places are counted in characters of Unicode, not in units of UTF-16
    this.render();
  }

  render() {
    setChildren(byId("words-result"), ...(this.found === null ? [] : this.#result()));
  }

  #result() {
    const chosen = this.found.labels[this.label];
    const largest = Math.max(...chosen.words.map(word => Math.abs(word.effect)), 0);
    const texts = this.texts.map((_, place) => 
      make("div", { class: "shaded", dir: "auto", tabindex: "0", role: "group", "aria-label": words("words.title") }, ...this.#shaded(place, chosen.words, largest)));
    const notes = {
      "words.none": chosen.words.length === 0,
      "words.small": chosen.words.length > 0 && largest < LEAST,
      "words.groups": chosen.words.some(word => word.words > 1),
    };
    return [
      make("h3", { class: "eyebrow" }, words("words.title")),
      this.#chooser(),
      ...texts,
      this.#key(),
      ...Object.keys(notes).filter(key => notes[key]).map(key => make("p", { class: "small" }, words(key))),
      chosen.words.length ? this.#table(chosen.words) : null,
      make("p", { class: "soft small" }, words("words.how")),
    ];
  }

  #chooser() {
    const { labels } = this.found;
    const select = make("select", { id: "words-label", onchange: event => this.#choose(event.target.selectedIndex) },
      ...labels.map(({ label, score }, place) => make("option", { selected: place === this.label }, `${visible(label)} (${formatScore(score)})`)));
    return make("p", { class: "row" }, make("label", { for: "words-label" }, words("words.of")), select);
  }

  #choose(place) {
    this.label = place;
    this.render();
    byId("words-label").focus();
  }

  // One text in pieces: its words, what was not read, and what is between them.
  #shaded(place, effects, largest) {
    const text = this.texts[place];
    const marks = [
      ...effects.filter(word => word.text === place),
      ...this.found.unread.filter(span => span.text === place).map(span => ({ ...span, effect: null })),
    ].sort((a, b) => a.start - b.start || a.end - b.end);
    const pieces = [];
    let done = 0;
    for (const { start, end, effect } of marks) {
      const first = Math.max(start, done); // a word may reach into what was not read
      if (first >= end) continue;
      pieces.push(text.slice(done, first).join(""));
      pieces.push(shade(text.slice(first, end).join(""), effect, largest));
      done = end;
    }
    pieces.push(text.slice(done).join(""));
    return pieces;
  }

  #key() {
    const unread = this.found.unread.length ? [" ", make("span", { class: "unread" }, words("words.unread"))] : [];
    const sign = (name, share) => {
      const mark = make("mark", { class: name }, words(`words.${name}`));
      mark.style.setProperty("--share", share);
      return mark;
    };
    return make("p", { class: "small signs" }, sign("for", 0.6), sign("against", 0.6), ...unread);
  }

  #table(effects) {
    const top = [...effects].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, TABLE_ROWS);
    const rows = top.map(({ word, effect }) => make("tr", {},
      make("td", {}, foreign(short(word))),
      make("td", { class: "number" }, words("words.points", { value: formatEffect(effect) }))));
    const head = make("tr", {}, make("th", { scope: "col" }, words("words.word")), make("th", { scope: "col", class: "number" }, words("words.effect")));
    return make("details", {}, make("summary", {}, words("words.table")),
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }
}

function shade(text, effect, largest) {
  if (effect === null) return make("span", { class: "unread", title: words("words.unread") }, text);
  const share = largest ? Math.abs(effect) / largest : 0;
  if (Math.abs(effect) < LEAST || share < 0.03) return text;
  const mark = make("mark", { class: effect > 0 ? "for" : "against", title: words("words.points", { value: formatEffect(effect) }) }, text);
  mark.style.setProperty("--share", share);
  return mark;
}

function short(word) {
  const line = Array.from(word.replace(/\s+/g, " "));
  return line.length <= 60 ? line.join("") : `${line.slice(0, 40).join("")} … ${line.slice(-15).join("")}`;
}
