// The page: load the models, ask for a key if the server wants one, and hand the chosen model to the parts.

import { hasKey, listModels, storeKey } from "./client.js";
import { byId, make, setChildren } from "./dom.js";
import { FileView } from "./file_view.js";
import { formatCount, languageTag, switchLanguage, words } from "./language.js";
import { clearMessage, showError, showMessage } from "./messages.js";
import { CodeView, renderFacts } from "./model_view.js";
import { isExclusive } from "./scoring.js";
import { TextView } from "./text_view.js";

const SNIPPET_DELAY = 300;
const LOADING_EVERY = 2000;

let served = null;
let model = null;
let timer = 0;

const code = new CodeView();
const text = new TextView({ onText: textChanged, onUnauthorized: askKey });
const file = new FileView({ onUnauthorized: askKey });

function textChanged() {
  clearTimeout(timer);
  timer = setTimeout(() => code.render(model, text.request()), SNIPPET_DELAY);
}

async function load() {
  clearMessage(byId("page-message"));
  try {
    served = await listModels();
  } catch (error) {
    if (error.kind === "unauthorized") askKey();
    else {
      byId("summary").textContent = "";
      showError(byId("page-message"), error);
    }
    if (error.kind === "unavailable") setTimeout(load, LOADING_EVERY);
    return;
  }
  byId("key-section").hidden = true;
  byId("content").hidden = false;
  fillChooser();
  choose(served.models.find(found => found.name === model?.name) ?? served.models[0]);
}

function askKey() {
  byId("key-section").hidden = false;
  if (model === null) byId("summary").textContent = "";
  if (hasKey()) showMessage(byId("page-message"), make("p", {}, words("key.wrong")));
  byId("key").focus();
}

function fillChooser() {
  setChildren(byId("model"), ...served.models.map(({ name }) => make("option", { value: name }, name)));
  byId("model-choice").hidden = served.models.length < 2;
}

function choose(chosen) {
  model = chosen;
  byId("model").value = model.name;
  text.setModel(model);
  file.setModel(model, model.limits);
  render();
}

// Everything that has words, in the present language.
function render() {
  document.documentElement.lang = languageTag();
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = words(element.dataset.text, { most: model ? formatCount(model.limits.explained_words) : "" });
  }
  byId("language").textContent = words("language.other");
  byId("language").lang = languageTag() === "en" ? "zh-Hans" : "en";
  if (model === null) {
    byId("summary").textContent = byId("key-section").hidden ? words("loading") : "";
    return;
  }
  document.title = `${model.name} · fullbake`;
  byId("model-name").textContent = model.name;
  const kind = `${isExclusive(model) ? "" : "multi"}${model.columns.length > 1 ? (isExclusive(model) ? "pair" : "_pair") : ""}` || "single";
  byId("summary").textContent = words(`summary.${kind}`, { count: formatCount(model.labels.length) });
  renderFacts(model);
  code.render(model, text.request());
}

byId("model").addEventListener("change", event => choose(served.models.find(({ name }) => name === event.target.value)));
byId("language").addEventListener("click", () => {
  switchLanguage();
  render();
  if (model === null) return;
  text.render();
  file.render();
});
byId("key-form").addEventListener("submit", event => {
  event.preventDefault();
  storeKey(byId("key").value.trim());
  byId("key").value = "";
  load();
});

render();
load();
