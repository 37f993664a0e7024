// What is known of a model, and lines of code that use it.

import { hasKey } from "./client.js";
import { byId, fill, foreign, make, setChildren } from "./dom.js";
import { formatCount, formatScore, languageTag, words } from "./language.js";
import { isExclusive } from "./scoring.js";
import { LANGUAGES, snippet } from "./snippets.js";

const MOST_LABELS = 30;
const LONGEST_EXAMPLE = 300;

export function renderFacts(model) {
  const rows = [...factsOf(model)].map(([key, value]) => make("div", {}, make("dt", {}, words(key)), make("dd", {}, value)));
  const labels = model.labels.slice(0, MOST_LABELS).map(label => make("li", {}, foreign(label)));
  if (model.labels.length > MOST_LABELS) labels.push(make("li", { class: "soft" }, `+ ${formatCount(model.labels.length - MOST_LABELS)}`));
  setChildren(byId("facts"),
    ...model.card.warnings.map(warning => make("p", { class: "notice", lang: "en" }, warning)),
    make("h3", { class: "eyebrow" }, `${words("facts.labels")} (${formatCount(model.labels.length)})`),
    make("ul", { class: "chips" }, ...labels),
    make("dl", { class: "facts" }, ...rows),
    ...scores(model));
}

function* factsOf(model) {
  const { card } = model;
  if (card.base !== null) yield ["facts.base", foreign(card.base)];
  const way = card.student ? "student" : card.way;
  if (["finetune", "frozen", "student"].includes(way)) yield ["facts.way", words(`facts.way.${way}`)];
  if (card.rows.train !== undefined) yield ["facts.training", formatCount(card.rows.train)];
  yield ["facts.decision", decisionWords(model)];
  if (card.cascade) yield ["facts.cascade", words("facts.cascade.words")];
  yield ["facts.length", words(model.truncation === "windows" ? "facts.length.windows" : "facts.length.cut", { tokens: formatCount(model.max_length) })];
  yield ["facts.engine", `${model.engine}, ${model.precision}`];
  yield ["facts.loaded", new Date(1000 * model.loaded).toLocaleString(languageTag(), { dateStyle: "medium", timeStyle: "short" })];
  if (card.fullbake !== null) yield ["facts.version", foreign(card.fullbake)];
}

function decisionWords(model) {
  const { decision } = model;
  if (decision?.costs) return words("facts.decision.costs");
  if (!decision?.thresholds) return words(isExclusive(model) ? "facts.decision.likeliest" : "facts.decision.half");
  if (!isExclusive(model)) return words("facts.decision.thresholds");
  const [[label, value]] = Object.entries(decision.thresholds);
  return fill(words("facts.decision.threshold", { value: formatScore(Math.min(value, 1)) }), "label", label);
}

function scores(model) {
  const { scores: found, student, cascade } = model.card;
  if (found === null) return [];
  const row = ([name, { value, low, high }]) => make("tr", {},
    make("th", { scope: "row" }, words(`facts.${name}`)),
    make("td", { class: "number" }, value === null ? "–" : value.toFixed(3)),
    make("td", { class: "number" }, low === null || high === null ? make("span", { class: "soft" }, words("facts.no_interval")) : `${low.toFixed(3)} – ${high.toFixed(3)}`));
  const head = ["facts.score", "facts.value", "facts.interval"].map((key, place) => make("th", { scope: "col", class: place ? "number" : null }, words(key)));
  const notes = [
    [student, "facts.student_note"],
    [cascade !== null, "facts.cascade_note"],
    [found.part === "validation" && !student, "facts.validation_note"],
  ];
  return [
    make("table", {}, make("caption", {}, words(`facts.scores.${found.part}`, { rows: formatCount(found.rows ?? 0) })),
      make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...Object.entries(found.values).map(row))),
    ...notes.filter(([applies]) => applies).map(([, key]) => make("p", { class: "soft small" }, words(key))),
  ];
}

// Lines of code in a few languages, of which one is seen at a time.
export class CodeView {
  constructor() {
    this.language = LANGUAGES[0];
  }

  // body: what is typed, as /v1/predict takes it; null takes an example.
  render(model, body) {
    this.model = model;
    this.body = body;
    const request = { url: new URL("v1/predict", document.baseURI).href, body: shortened(body) ?? example(model), withKey: hasKey() };
    const code = make("code", {}, snippet(this.language, request));
    const status = make("span", { role: "status", class: "soft small" });
    setChildren(byId("code"),
      make("div", { class: "row" }, this.#choices(), make("button", { type: "button", id: "code-copy", onclick: () => copy(code, status) }, words("code.copy")), status),
      request.withKey ? make("p", { class: "soft small" }, words("code.key")) : null,
      make("pre", { tabindex: "0", dir: "ltr" }, code));
  }

  #choices() {
    const radios = LANGUAGES.map(name => {
      const id = `code-${name}`;
      const radio = make("input", { type: "radio", name: "code-language", id, class: "unseen", checked: name === this.language, onchange: () => this.#choose(name) });
      return [radio, make("label", { for: id, class: "segment" }, name)];
    });
    return make("fieldset", { class: "segments" }, make("legend", { class: "unseen" }, words("code.language")), ...radios.flat());
  }

  #choose(name) {
    this.language = name;
    this.render(this.model, this.body);
    byId(`code-${name}`).focus();
  }
}

async function copy(code, status) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    status.textContent = words("code.copied");
  } catch {
    getSelection().selectAllChildren(code);
    status.textContent = words("code.not_copied");
  }
}

function example(model) {
  const texts = [words("code.example"), words("code.example_pair")];
  if (model.columns.length === 1) return { model: model.name, texts: texts.slice(0, 1) };
  return { model: model.name, rows: [Object.fromEntries(model.columns.map((name, place) => [name, texts[place]]))] };
}

function shortened(body) {
  if (body === null) return null;
  const short = text => (text.length > LONGEST_EXAMPLE ? `${text.slice(0, LONGEST_EXAMPLE).toWellFormed()}…` : text);
  if (body.texts) return { ...body, texts: body.texts.map(short) };
  return { ...body, rows: body.rows.map(row => Object.fromEntries(Object.entries(row).map(([name, text]) => [name, short(text)]))) };
}
