// Score a file: drop or choose it, check how it is read, start, watch, download.

import { countBars } from "./bars.js";
import { byId, foreign, make, setChildren } from "./dom.js";
import { formatCount, formatSeconds, words } from "./language.js";
import { clearMessage, showError } from "./messages.js";
import { addedColumns, FileScoring } from "./scoring.js";
import { guessDelimiter, guessFormat, Table, TableError } from "./tables.js";

const SAMPLE_BYTES = 65_536;
const PREVIEW_ROWS = 3;
const PREVIEW_COLUMNS = 8;
const PREVIEW_CHARACTERS = 120;
const MOST_COUNTS = 20;
const SPOKEN_EVERY = 10;
const DELIMITERS = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe" };
const ENCODINGS = ["utf-8", "utf-16le", "utf-16be", "windows-1252", "gb18030", "big5", "shift_jis", "euc-kr", "koi8-r"];

export class FileView {
  // onUnauthorized() is called when the key is no longer accepted.
  constructor({ onUnauthorized }) {
    this.onUnauthorized = onUnauthorized;
    this.model = null;
    this.file = null;
    this.options = null;
    this.scoring = null;
    this.ended = null;
    this.cancel = new AbortController();
    const drop = byId("drop");
    drop.addEventListener("dragover", event => {
      event.preventDefault();
      drop.classList.add("over");
    });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", event => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files.length && !this.isRunning()) this.take(event.dataTransfer.files[0]);
    });
    byId("file").addEventListener("change", event => {
      if (event.target.files.length) this.take(event.target.files[0]);
      event.target.value = ""; // the same file may be chosen again
    });
    byId("file-cancel").addEventListener("click", () => this.cancel.abort());
    byId("file-form").addEventListener("submit", event => {
      event.preventDefault();
      this.start();
    });
    // a file that misses the field does not replace the page
    for (const name of ["dragover", "drop"]) window.addEventListener(name, event => event.preventDefault());
    window.addEventListener("beforeunload", event => {
      if (this.isRunning()) event.preventDefault();
    });
  }

  isRunning() {
    return this.scoring !== null && this.ended === null;
  }

  setModel(model, limits) {
    this.cancel.abort();
    this.model = model;
    this.limits = limits;
    this.#reset();
    this.render();
  }

  #reset() {
    this.file = this.options = this.scoring = this.ended = null;
    this.sample = [];
    clearMessage(byId("file-message"));
    byId("file-status").textContent = "";
  }

  // Look at the start of a file, and offer how to read it.
  async take(file) {
    this.#reset();
    this.file = file;
    byId("file-status").textContent = words("file.reading", { name: file.name });
    try {
      const { encoding, marked, text } = await readSample(file);
      const format = guessFormat(file.name, text);
      if (format === "lines" && this.model.columns.length > 1) throw new TableError("no_pairs");
      const delimiter = file.name.toLowerCase().endsWith(".tsv") ? "\t" : guessDelimiter(text);
      this.options = { format, delimiter, header: true, encoding, marked, columns: [], prefix: "" };
      await this.#look();
      if (this.file === file) byId("file-status").textContent = words("file.ready", { name: file.name });
    } catch (error) {
      if (this.file !== file) return;
      this.file = this.options = null;
      byId("file-status").textContent = "";
      showError(byId("file-message"), error);
    }
    this.render();
  }

  // Read the first rows by the present options. An error is shown, and the options stay to be changed.
  async #look() {
    clearMessage(byId("file-message"));
    const table = new Table(this.file, { ...this.options, columns: [] });
    this.sample = [];
    try {
      for await (const rows of table.read()) {
        this.sample.push(...rows.slice(0, PREVIEW_ROWS - this.sample.length));
        if (this.sample.length >= PREVIEW_ROWS) break;
      }
      if (this.sample.length === 0) throw new TableError("empty_file");
    } catch (error) {
      showError(byId("file-message"), error);
    }
    this.names = table.names;
    const chosen = this.options.columns.filter(name => this.names.includes(name));
    this.options.columns = this.model.columns.map((name, place) => chosen[place] ?? guessColumn(name, this.names, this.options.format));
  }

  async #change(changed) {
    Object.assign(this.options, changed);
    this.ended = this.scoring = null;
    const focused = document.activeElement?.id;
    await this.#look();
    this.render();
    if (focused) byId(focused)?.focus();
  }

  async start() {
    if (this.isRunning()) return;
    const { columns, prefix } = this.options;
    clearMessage(byId("file-message"));
    if (columns.includes("")) {
      showError(byId("file-message"), new TableError("no_column"));
      byId(`column-${columns.indexOf("")}`).focus();
      return;
    }
    if (new Set(columns).size < columns.length) {
      showError(byId("file-message"), new TableError("same_column"));
      return;
    }
    const table = new Table(this.file, { ...this.options, added: addedColumns(this.model, prefix) });
    const scoring = new FileScoring({ table, model: this.model, limits: this.limits, prefix });
    this.cancel = new AbortController();
    this.scoring = scoring;
    this.ended = null;
    this.started = performance.now();
    this.spoken = this.started;
    this.render();
    byId("file-cancel").focus();
    await this.#run(scoring, this.cancel.signal);
  }

  async #run(scoring, signal) {
    let error = null;
    try {
      await scoring.run({
        signal,
        onProgress: () => this.#progress(),
        onWait: seconds => this.#say(words("file.waiting", { seconds: Math.ceil(seconds), rows: formatCount(scoring.rows) })),
      });
    } catch (failure) {
      error = failure;
    }
    if (this.scoring !== scoring) return; // another model or file was chosen meanwhile
    const seconds = (performance.now() - this.started) / 1000;
    const state = error === null ? "done" : signal.aborted ? "cancelled" : "stopped";
    this.ended = { state, seconds, blob: scoring.rows ? scoring.blob() : null };
    if (state === "stopped") {
      showError(byId("file-message"), error);
      if (error.kind === "unauthorized") this.onUnauthorized();
      if (error.key === "taken") this.needsPrefix = true;
    }
    this.render();
    byId("file-status").textContent = this.#endWords();
    (byId("file-result").querySelector("a") ?? byId("file-start"))?.focus();
  }

  #progress() {
    const { share, rows } = this.scoring;
    const now = performance.now();
    const seconds = (now - this.started) / 1000;
    byId("file-bar").value = share;
    const values = { percent: `${Math.floor(100 * share)}%`, rows: formatCount(rows) };
    const left = share > 0.02 && seconds > 1 ? formatSeconds((seconds * (1 - share)) / share) : null;
    this.#say(left === null ? words("file.progress_first", values) : words("file.progress", { ...values, left }), now);
  }

  // Show the progress; a screen reader hears it now and then.
  #say(sentence, now = performance.now()) {
    byId("file-words").textContent = sentence;
    if (now - this.spoken < 1000 * SPOKEN_EVERY) return;
    this.spoken = now;
    byId("file-status").textContent = sentence;
  }

  #endWords() {
    const values = { rows: formatCount(this.scoring.rows), time: formatSeconds(this.ended.seconds) };
    return words(`file.${this.ended.state}`, values);
  }

  render() {
    const running = this.isRunning();
    byId("drop").hidden = this.options !== null;
    byId("file-form").hidden = this.options === null || running;
    byId("file-progress").hidden = !running;
    byId("file-form").replaceChildren(...(this.options === null ? [] : this.#form()));
    if (running) this.#progress();
    byId("file-result").replaceChildren(...(this.ended === null ? [] : this.#result()));
  }

  #form() {
    const { format, delimiter, header, encoding, prefix } = this.options;
    const formats = this.model.columns.length > 1 ? ["csv", "jsonl"] : ["csv", "jsonl", "lines"];
    const isTable = format === "csv";
    return [
      make("p", { class: "file-name" }, foreign(this.file.name)),
      make("div", { class: "fields" },
        ...(format === "lines" ? [] : this.#columnFields()),
        choice("file-format", "file.format", formats.map(name => [name, words(`file.${name}`)]), format,
          value => this.#change({ format: value, columns: [] })),
        isTable ? choice("file-delimiter", "file.delimiter", Object.entries(DELIMITERS).map(([sign, name]) => [sign, words(`file.${name}`)]),
          delimiter, value => this.#change({ delimiter: value, columns: [] })) : null,
        choice("file-encoding", "file.encoding", ENCODINGS.map(name => [name, name.toUpperCase()]), encoding,
          value => this.#change({ encoding: value, columns: [] })),
        this.needsPrefix || prefix ? field("file-prefix", "file.prefix", make("input", { id: "file-prefix", value: prefix, spellcheck: "false",
          oninput: event => { this.options.prefix = event.target.value; } })) : null),
      isTable ? make("p", {}, make("label", { class: "check-label" },
        make("input", { id: "file-header", type: "checkbox", checked: header,
          onchange: event => this.#change({ header: event.target.checked, columns: [] }) }), ` ${words("file.header")}`)) : null,
      this.sample.length ? this.#preview() : null,
      make("div", { class: "row" },
        make("button", { type: "submit", class: "primary", id: "file-start", disabled: this.sample.length === 0 }, words("file.start")),
        make("button", { type: "button", id: "file-other", onclick: () => this.#other() }, words("file.other"))),
    ].filter(Boolean);
  }

  #other() {
    this.#reset();
    this.needsPrefix = false;
    this.render();
    byId("file").focus();
  }

  #columnFields() {
    const keys = this.model.columns.length > 1 ? ["file.first_column", "file.second_column"] : ["file.column"];
    const options = [["", words("file.pick")], ...this.names.map(name => [name, name])];
    return keys.map((key, place) => choice(`column-${place}`, key, options, this.options.columns[place], value => {
      this.options.columns[place] = value;
      this.render();
      byId(`column-${place}`).focus();
    }));
  }

  #preview() {
    const names = this.names.slice(0, PREVIEW_COLUMNS);
    const chosen = new Set(this.options.format === "lines" ? names : this.options.columns);
    const head = names.map(name => make("th", { scope: "col", class: chosen.has(name) ? "chosen" : null }, foreign(name)));
    const rows = this.sample.map(row => make("tr", {}, ...names.map((name, place) =>
      make("td", { class: chosen.has(name) ? "chosen" : null }, foreign(shorten(cellOf(row, name, place)))))));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": words("file.preview") },
      make("table", {}, make("caption", {}, words("file.preview")), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
  }

  #result() {
    const { blob, state } = this.ended;
    const counts = [...this.scoring.counts].sort((a, b) => b[1] - a[1]).slice(0, MOST_COUNTS);
    return [
      make("p", { class: state === "done" ? "done" : "soft" }, this.#endWords()),
      blob === null ? null : this.#download(blob, state),
      blob === null ? null : make("h3", { class: "eyebrow" }, words("file.counts")),
      blob === null ? null : countBars(counts, this.scoring.rows),
    ].filter(Boolean);
  }

  #download(blob, state) {
    const name = scoredName(this.file.name, this.options.format);
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = URL.createObjectURL(blob);
    const sentence = words(state === "done" ? "file.download" : "file.download_part", { name });
    return make("p", {}, make("a", { class: "button primary", href: this.address, download: name }, sentence));
  }
}

function field(id, key, input) {
  return make("div", { class: "field" }, make("label", { for: id }, words(key)), input);
}

function choice(id, key, options, chosen, onChange) {
  const select = make("select", { id, onchange: event => onChange(event.target.value) },
    ...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
  return field(id, key, select);
}

async function readSample(file) {
  const bytes = new Uint8Array(await file.slice(0, SAMPLE_BYTES).arrayBuffer());
  const starts = (...mark) => mark.every((byte, place) => bytes[place] === byte);
  const encoding = starts(0xff, 0xfe) ? "utf-16le" : starts(0xfe, 0xff) ? "utf-16be" : "utf-8";
  return { encoding, marked: starts(0xef, 0xbb, 0xbf), text: new TextDecoder(encoding).decode(bytes) };
}

// The column of training, whatever its case; the only column there is; else the user must choose ("").
function guessColumn(wanted, names, format) {
  if (format === "lines") return "text";
  if (names.includes(wanted)) return wanted;
  return names.find(name => name.trim().toLowerCase() === wanted.toLowerCase()) ?? (names.length === 1 ? names[0] : "");
}

function cellOf(row, name, place) {
  if (row.fields) return row.fields[place];
  const value = JSON.parse(row.line)[name];
  return typeof value === "string" ? value : JSON.stringify(value) ?? "";
}

function shorten(text) {
  const start = Array.from(text.slice(0, 2 * PREVIEW_CHARACTERS));
  return start.length > PREVIEW_CHARACTERS || text.length > 2 * PREVIEW_CHARACTERS ? `${start.slice(0, PREVIEW_CHARACTERS).join("")} …` : text;
}

function scoredName(name, format) {
  const stem = name.replace(/\.[^.]*$/, "") || "file";
  const ending = { csv: name.toLowerCase().endsWith(".tsv") ? "tsv" : "csv", jsonl: "jsonl", lines: "csv" }[format];
  return `${stem}.scored.${ending}`;
}
