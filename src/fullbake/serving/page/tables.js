// Read and write tables piece by piece: CSV with quotes, JSON lines, one text a line. No DOM, no network.

const LONGEST_FIELD = 20_000_000;
const SAMPLE_ROWS = 50;

// What is wrong with a file. key: of strings.js, without "problem.".
export class TableError extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

// CSV (RFC 4180): push pieces of text, get rows as arrays of fields. Blank lines are left out. A quote counts only at the
// start of a field.
export class CsvParser {
  #delimiter;
  #stop;
  #state = "start";
  #field = "";
  #fields = [];
  #row = 1;
  #skipNewline = false;

  constructor(delimiter) {
    this.#delimiter = delimiter;
    this.#stop = new RegExp(`[${delimiter === "|" ? "\\|" : delimiter}\\r\\n]`, "g");
  }

  push(piece) {
    const rows = [];
    let at = 0;
    while (at < piece.length) {
      const character = piece[at];
      if (this.#skipNewline) {
        this.#skipNewline = false;
        if (character === "\n") {
          at += 1;
          continue;
        }
      }
      if (this.#state === "start" && character === '"') {
        this.#state = "quoted";
        at += 1;
      } else if (this.#state === "start" || this.#state === "plain") {
        this.#stop.lastIndex = at;
        const end = this.#stop.exec(piece)?.index ?? piece.length;
        this.#add(piece.slice(at, end));
        this.#state = "plain";
        at = end;
        if (at < piece.length) this.#end(piece[at++], rows);
      } else if (this.#state === "quoted") {
        const end = piece.indexOf('"', at);
        this.#add(piece.slice(at, end < 0 ? piece.length : end));
        at = end < 0 ? piece.length : end + 1;
        if (end >= 0) this.#state = "closed";
      } else if (character === '"') {
        this.#add('"');
        this.#state = "quoted";
        at += 1;
      } else {
        this.#end(character, rows);
        at += 1;
      }
    }
    return rows;
  }

  finish() {
    if (this.#state === "quoted") throw new TableError("open_quote", { row: this.#row });
    const rows = [];
    if (this.#state !== "start" || this.#fields.length) this.#end("\n", rows);
    return rows;
  }

  #add(text) {
    this.#field += text;
    if (this.#field.length > LONGEST_FIELD) throw new TableError("open_quote", { row: this.#row });
  }

  #end(character, rows) {
    const isRow = character === "\n" || character === "\r";
    if (!isRow && character !== this.#delimiter) throw new TableError("quote", { row: this.#row });
    const blank = isRow && this.#fields.length === 0 && this.#field === "" && this.#state !== "closed";
    this.#state = "start";
    this.#skipNewline = character === "\r";
    if (blank) return;
    this.#fields.push(this.#field);
    this.#field = "";
    if (!isRow) return;
    rows.push(this.#fields);
    this.#fields = [];
    this.#row += 1;
  }
}

// Lines, without their ends. A last line needs no end.
export class LineParser {
  #rest = "";
  #row = 1;

  push(piece) {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop();
    if (this.#rest.length > LONGEST_FIELD) throw new TableError("json", { row: this.#row + lines.length });
    this.#row += lines.length;
    return lines.map(line => (line.endsWith("\r") ? line.slice(0, -1) : line));
  }

  finish() {
    const last = this.#rest;
    this.#rest = "";
    return last === "" ? [] : [last.endsWith("\r") ? last.slice(0, -1) : last];
  }
}

export function writeCsvRow(fields, delimiter) {
  const needsQuotes = field => field.includes('"') || field.includes(delimiter) || /[\r\n]/.test(field) || /^\s|\s$/.test(field);
  const only = fields.length === 1 && fields[0] === ""; // else it would be a blank line
  return `${fields.map(field => (needsQuotes(field) || only ? `"${field.replaceAll('"', '""')}"` : field)).join(delimiter)}\r\n`;
}

// Add fields to a JSON object as it was written, so that its numbers keep all their digits. added: [[name, value], ...].
export function extendJsonLine(line, added) {
  const body = line.trim().slice(0, -1).trimEnd();
  const more = added.map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`).join(", ");
  return `${body}${body.endsWith("{") ? "" : ", "}${more}}\n`;
}

// The delimiter that divides the rows of a sample most evenly. A comma if none divides them.
export function guessDelimiter(sample) {
  let best = { delimiter: ",", score: 0 };
  for (const delimiter of [",", ";", "\t", "|"]) {
    const rows = parseSample(sample, delimiter);
    if (rows === null || rows.length === 0 || rows[0].length < 2) continue;
    const even = rows.filter(row => row.length === rows[0].length).length / rows.length;
    const score = even * even * Math.min(rows[0].length, 10) + even * 100;
    if (score > best.score) best = { delimiter, score };
  }
  return best.delimiter;
}

function parseSample(sample, delimiter) {
  try {
    return new CsvParser(delimiter).push(sample).slice(0, SAMPLE_ROWS);
  } catch {
    return null;
  }
}

// "csv", "jsonl" or "lines", by the ending of the name, or by how the text starts.
export function guessFormat(name, sample) {
  const ending = name.toLowerCase().split(".").pop();
  if (/^(gz|zip|bz2|xz|zst|parquet|arrow|feather|xlsx?|ods|docx?|pdf)$/.test(ending)) throw new TableError("kind");
  if (sample.includes("\u0000")) throw new TableError("kind");
  const start = sample.trimStart();
  if (ending === "jsonl" || ending === "ndjson") return "jsonl";
  if (ending === "json" || start.startsWith("{")) {
    if (start.startsWith("[") || !isJsonObject(start.split("\n", 1)[0])) throw new TableError("json_array");
    return "jsonl";
  }
  if (ending === "csv" || ending === "tsv") return "csv";
  return ending === "txt" ? "lines" : "csv";
}

function isJsonObject(line) {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

// A table of a file. options: {format, delimiter, header, encoding, columns, added}. columns: names of one or two columns
// of texts. added: names of columns that the file must not have.
export class Table {
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.names = []; // of the columns, known after the first row
  }

  // Yield lists of rows: {number, texts, bytes} and fields (CSV, lines) or line (JSON lines). bytes: read so far.
  async *read() {
    const { format, delimiter, encoding } = this.options;
    const parser = format === "csv" ? new CsvParser(delimiter) : new LineParser();
    const decoder = new TextDecoder(encoding, { fatal: true });
    let bytes = 0;
    let before = 0;
    let number = 0;
    const reader = this.file.stream().getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        bytes += value?.length ?? 0;
        const found = parser.push(decode(decoder, value, done, encoding));
        if (done) found.push(...parser.finish());
        const rows = [];
        for (const [place, row] of found.entries()) {
          number += 1;
          const made = this.#row(row, number);
          // the bytes of a piece are shared evenly among its rows: close enough for a progress bar
          if (made !== null) rows.push({ ...made, bytes: before + ((bytes - before) * (place + 1)) / found.length });
        }
        before = found.length ? bytes : before;
        if (rows.length) yield rows;
        if (done) return;
      }
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  #row(row, number) {
    const { format } = this.options;
    if (format === "csv") return this.#csvRow(row, number);
    if (format === "jsonl") return row.trim() === "" ? null : this.#jsonRow(row, number);
    this.names = ["text"];
    if (number === 1) this.#refuseTaken(name => name === "text");
    return { number, fields: [row], texts: [checkText(row, number)] };
  }

  #csvRow(fields, number) {
    if (number === 1) {
      this.names = this.options.header ? fields : fields.map((_, place) => `column_${place + 1}`);
      const twice = this.names.find((name, place) => this.names.indexOf(name) !== place);
      if (twice !== undefined) throw new TableError("twice", { column: twice });
      this.#refuseTaken(name => this.names.includes(name));
      if (this.options.header) return null;
    }
    if (fields.length !== this.names.length) {
      throw new TableError("fields", { row: number, got: fields.length, expected: this.names.length });
    }
    return { number, fields, texts: this.options.columns.map(name => checkText(fields[this.names.indexOf(name)], number)) };
  }

  #jsonRow(line, number) {
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      throw new TableError("json", { row: number });
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TableError("json", { row: number });
    if (!this.names.length) this.names = Object.keys(value);
    this.#refuseTaken(name => Object.hasOwn(value, name));
    const texts = this.options.columns.map(name => {
      if (!Object.hasOwn(value, name) || typeof value[name] !== "string") {
        throw new TableError("not_text", { row: number, column: name });
      }
      return checkText(value[name], number);
    });
    return { number, line, texts };
  }

  #refuseTaken(isTaken) {
    const taken = (this.options.added ?? []).find(isTaken);
    if (taken !== undefined) throw new TableError("taken", { column: taken });
  }
}

function checkText(text, number) {
  if (text === undefined) throw new TableError("no_column");
  if (!text.isWellFormed()) throw new TableError("surrogate", { row: number });
  return text;
}

function decode(decoder, value, done, encoding) {
  try {
    return done ? decoder.decode() : decoder.decode(value, { stream: true });
  } catch {
    throw new TableError("encoding", { encoding: encoding.toUpperCase() });
  }
}
