// One text: type it, see its labels as bars.

import { scoreBars } from "./bars.js";
import { ask } from "./client.js";
import { byId, foreign, make, setChildren } from "./dom.js";
import { formatCount, formatScore, words } from "./language.js";
import { clearMessage, showError, showMessage } from "./messages.js";
import { checkLabels, isExclusive } from "./scoring.js";
import { WordsView } from "./words_view.js";

const MOST_EXPLAINED = 5;

export class TextView {
  // onText() is called when the text changes, onUnauthorized() when the key is no longer accepted.
  constructor({ onText, onUnauthorized }) {
    this.onUnauthorized = onUnauthorized;
    this.model = null;
    this.answer = null;
    this.open = false;
    this.running = null;
    this.words = new WordsView();
    byId("text-form").addEventListener("submit", event => {
      event.preventDefault();
      this.classify();
    });
    byId("explain").addEventListener("click", () => this.explain());
    for (const field of this.fields()) {
      field.addEventListener("input", onText);
      field.addEventListener("keydown", event => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          this.classify();
        }
      });
    }
  }

  fields() {
    return [byId("text"), byId("pair")];
  }

  isPair() {
    return this.model.columns.length > 1;
  }

  // What is typed, as /v1/predict takes it; null without a text.
  request() {
    const texts = this.fields().slice(0, this.isPair() ? 2 : 1).map(field => field.value.toWellFormed());
    if (texts.some(text => text.trim() === "")) return null;
    return this.body(texts);
  }

  body(texts) {
    const { name, columns } = this.model;
    const rows = this.isPair() ? { rows: [Object.fromEntries(columns.map((column, place) => [column, texts[place]]))] } : { texts };
    return { model: name, ...rows };
  }

  setModel(model) {
    this.running?.abort();
    this.model = model;
    this.answer = null;
    this.open = false;
    this.words.clear();
    clearMessage(byId("text-message"));
    byId("pair-field").hidden = !this.isPair();
    this.render();
  }

  // Show the labels of what is typed. Returns false if there is no answer.
  async classify(button = byId("classify")) {
    const found = await this.#ask("v1/predict", button, request => request);
    if (found === null) return false;
    this.answer = found;
    this.open = false;
    this.words.clear();
    this.render();
    this.#announce(found.results[0]);
    return true;
  }

  // Show which words mattered for the labels that were given and for the likeliest others.
  async explain() {
    const button = byId("explain");
    if (!(await this.classify(button))) return;
    const entries = this.#entries();
    const labels = entries.filter((entry, place) => entry.given || place < MOST_EXPLAINED).map(entry => entry.label);
    const found = await this.#ask("v1/explain", button, ({ model }) => {
      const [text, text_pair = null] = this.texts;
      return { model, text, text_pair, labels };
    });
    if (found === null) return;
    this.words.show(found, this.texts);
    byId("text-status").textContent = words("words.announce", { count: formatCount(found.labels[0].words.length) });
  }

  // Ask for what is typed. bodyOf: turns the body of /v1/predict into that of the path. Returns null if there is no text,
  // after an error, or when a newer request took its place.
  async #ask(path, button, bodyOf) {
    const request = this.request();
    clearMessage(byId("text-message"));
    if (request === null) {
      showMessage(byId("text-message"), make("p", {}, words(this.isPair() ? "text.empty_pair" : "text.empty")));
      this.fields().find(field => field.value.trim() === "").focus();
      return null;
    }
    this.running?.abort();
    const own = new AbortController();
    this.running = own;
    byId("text-status").textContent = words("text.working");
    button.setAttribute("aria-busy", "true");
    try {
      this.texts = request.texts ?? this.model.columns.map(column => request.rows[0][column]);
      const found = await ask(path, bodyOf(request), own.signal);
      found.results?.forEach(result => checkLabels(this.model, result));
      return this.running === own ? found : null;
    } catch (error) {
      if (this.running !== own) return null;
      byId("text-status").textContent = "";
      if (error.kind === "unauthorized") this.onUnauthorized();
      else showError(byId("text-message"), error);
      return null;
    } finally {
      button.removeAttribute("aria-busy");
    }
  }

  #announce(result) {
    const labels = isExclusive(this.model) ? [result.label] : result.labels;
    byId("text-status").textContent = labels.length
      ? words("text.announce", { labels: labels.join(", "), score: formatScore(result.scores[labels[0]]) })
      : words("text.announce_none");
  }

  render() {
    const [first, second] = this.model.columns;
    setChildren(byId("text-label"), ...(this.isPair() ? columnWords("text.first", first) : [words("text.label")]));
    if (this.isPair()) setChildren(byId("pair-label"), ...columnWords("text.second", second));
    byId("text-result").replaceChildren(...(this.answer === null ? [] : this.#result()));
    this.words.render();
  }

  #result() {
    const { results: [result], decision, timing } = this.answer;
    const entries = this.#entries();
    const toggle = () => {
      this.open = !this.open;
      this.render();
      byId("text-result").querySelector("button")?.focus();
    };
    const facts = [
      words("text.timing", { tokens: formatCount(timing.tokens), seconds: timing.seconds.toFixed(3) }),
      result.answered_by ? words(`text.by_${result.answered_by}`) : null,
      decision?.costs ? words("text.costs") : null,
    ].filter(Boolean);
    return [
      make("h3", { class: "eyebrow" }, words("text.answer")),
      make("p", { class: "answer" }, ...this.#labels(entries.filter(entry => entry.given))),
      scoreBars(entries, { open: this.open, onToggle: toggle }),
      ...facts.map(fact => make("p", { class: "soft small" }, fact)),
    ];
  }

  // All labels of the answer, the likeliest first, those that are given before the others.
  #entries() {
    const { results: [result], decision } = this.answer;
    const given = new Set(isExclusive(this.model) ? [result.label] : result.labels);
    return this.model.labels
      .map(label => ({
        label, score: result.scores[label], threshold: thresholdOf(decision, label, this.model), given: given.has(label),
      }))
      .sort((a, b) => b.given - a.given || b.score - a.score);
  }

  #labels(given) {
    if (given.length === 0) {
      return [words("text.no_label"), make("span", { class: "soft aside" }, ` ${words("text.no_label_why")}`)];
    }
    return given.flatMap(({ label }, place) => [place ? ", " : null, foreign(label)]);
  }
}

function columnWords(key, column) {
  const [before, after] = words(key).split("{column}");
  return [before, foreign(column), after];
}

// The score from which on a label is given; null where no threshold decides.
function thresholdOf(decision, label, model) {
  if (decision?.thresholds) return Object.hasOwn(decision.thresholds, label) ? decision.thresholds[label] : null;
  return isExclusive(model) || decision?.costs ? null : 0.5;
}
