// Score the rows of a table: bounded requests, two at a time, in order. Memory does not grow with the file: what is
// finished goes into blobs, which the browser keeps on disk when they are large.

import { askPatiently, ServerError } from "./client.js";
import { extendJsonLine, TableError, writeCsvRow } from "./tables.js";

const AT_ONCE = 2;
const FIRST_SIZE = 16;
const MOST_ROWS = 512;
const MOST_CHARACTERS = 500_000;
const QUICK = 0.4;
const SLOW = 2;
const PIECE = 1_000_000;

// The columns that `fullbake predict` adds, in its order.
export function addedColumns(model, prefix = "") {
  const predicted = isExclusive(model) ? ["predicted", "score"] : model.labels.map(label => `predicted:${label}`);
  const answered = model.card.cascade ? ["answered_by"] : [];
  return [...predicted, ...model.labels.map(label => `score:${label}`), ...answered].map(name => prefix + name);
}

export function isExclusive(model) {
  return model.problem === "single_label_classification";
}

// Refuse an answer with other labels than the page knows: the server loaded another bundle under the same name.
export function checkLabels(model, result) {
  const names = Object.keys(result.scores);
  if (names.length !== model.labels.length || !model.labels.every(label => Object.hasOwn(result.scores, label))) {
    throw new TableError("changed");
  }
}

// The values of the added columns for one result of /v1/predict.
export function addedValues(model, result) {
  const scores = model.labels.map(label => round(result.scores[label]));
  const predicted = isExclusive(model)
    ? [result.label, round(result.scores[result.label])]
    : model.labels.map(label => (result.labels.includes(label) ? 1 : 0));
  return [...predicted, ...scores, ...(model.card.cascade ? [result.answered_by] : [])];
}

// fp32 has 7 to 9 digits
function round(score) {
  return Number(score.toPrecision(8));
}

export class FileScoring {
  // settings: {table, model, limits, prefix}
  constructor({ table, model, limits, prefix = "" }) {
    this.table = table;
    this.model = model;
    this.limits = limits;
    this.added = addedColumns(model, prefix);
    this.rows = 0;
    this.counts = new Map();
    this.share = 0; // of the file that is done
    this.size = FIRST_SIZE;
    this.blobs = [];
    this.text = "";
  }

  // Score all rows. onProgress() is called after each request, onWait(seconds) when the server is busy. What was scored
  // before an error stays in blob().
  async run({ signal, onProgress, onWait }) {
    const own = new AbortController();
    const stop = () => own.abort();
    signal.addEventListener("abort", stop, { once: true });
    const running = [];
    try {
      signal.throwIfAborted();
      for await (const rows of this.#batches()) {
        const sent = this.#send(rows, own.signal, onWait);
        sent.catch(() => undefined); // it is awaited below, and after an error of an earlier one it need not be
        running.push({ rows, sent });
        if (running.length >= AT_ONCE) await this.#take(running.shift(), onProgress);
      }
      for (const request of running) await this.#take(request, onProgress);
      if (this.rows === 0) throw new TableError("empty_file");
    } finally {
      own.abort();
      signal.removeEventListener("abort", stop);
    }
  }

  // What was scored, in UTF-8. Spreadsheet programs need the mark of UTF-8 at the start, so a table that had one, or that
  // had another encoding, gets it.
  blob() {
    this.#flush();
    const { format, encoding, marked } = this.table.options;
    const mark = format === "csv" && (marked || encoding !== "utf-8") ? ["\ufeff"] : [];
    return new Blob([...mark, ...this.blobs], { type: this.#isJson() ? "application/jsonl" : "text/csv" });
  }

  async *#batches() {
    let batch = [];
    let characters = 0;
    const most = Math.min(MOST_CHARACTERS, this.limits.body_bytes / 8);
    for await (const rows of this.table.read()) {
      for (const row of rows) {
        const own = row.texts.reduce((sum, text) => sum + text.length, 0);
        if (batch.length && (batch.length >= this.size || characters + own > most)) {
          yield batch;
          batch = [];
          characters = 0;
        }
        batch.push(row);
        characters += own;
      }
    }
    if (batch.length) yield batch;
  }

  async #send(rows, signal, onWait) {
    const columns = this.model.columns;
    const texts = columns.length === 1
      ? { texts: rows.map(row => row.texts[0]) }
      : { rows: rows.map(row => Object.fromEntries(columns.map((name, place) => [name, row.texts[place]]))) };
    try {
      const found = await askPatiently("v1/predict", { model: this.model.name, ...texts }, signal, onWait);
      found.results.forEach(result => checkLabels(this.model, result));
      this.#adapt(rows.length, found.timing.seconds);
      return found.results;
    } catch (error) {
      if (!(error instanceof ServerError) || !["too_large", "timeout", "invalid"].includes(error.kind)) throw error;
      if (rows.length === 1) {
        error.row = rows[0].number;
        throw error;
      }
      // smaller requests may be taken; and if one row is refused, this finds it
      if (error.kind !== "invalid") this.size = Math.max(1, Math.floor(rows.length / 2));
      const middle = Math.ceil(rows.length / 2);
      const first = await this.#send(rows.slice(0, middle), signal, onWait);
      return [...first, ...(await this.#send(rows.slice(middle), signal, onWait))];
    }
  }

  #adapt(sent, seconds) {
    const most = Math.min(MOST_ROWS, this.limits.texts);
    if (seconds < QUICK && sent >= this.size) this.size = Math.min(most, 2 * this.size);
    else if (seconds > SLOW) this.size = Math.max(1, Math.floor(sent / 2));
    this.size = Math.min(this.size, most);
  }

  async #take({ rows, sent }, onProgress) {
    const results = await sent;
    if (!this.rows && !this.#isJson()) this.text += writeCsvRow([...this.table.names, ...this.added], this.#delimiter());
    for (const [place, row] of rows.entries()) this.#write(row, results[place]);
    this.rows += rows.length;
    this.share = Math.min(1, rows.at(-1).bytes / Math.max(1, this.table.file.size));
    onProgress();
  }

  #write(row, result) {
    const values = addedValues(this.model, result);
    this.text += this.#isJson()
      ? extendJsonLine(row.line, this.added.map((name, place) => [name, values[place]]))
      : writeCsvRow([...row.fields, ...values.map(String)], this.#delimiter());
    if (this.text.length > PIECE) this.#flush();
    for (const label of isExclusive(this.model) ? [result.label] : result.labels.length ? result.labels : [null]) {
      this.counts.set(label, (this.counts.get(label) ?? 0) + 1);
    }
  }

  #flush() {
    if (this.text) this.blobs.push(new Blob([this.text]));
    this.text = "";
  }

  #isJson() {
    return this.table.options.format === "jsonl";
  }

  #delimiter() {
    return this.table.options.format === "csv" ? this.table.options.delimiter : ",";
  }
}
