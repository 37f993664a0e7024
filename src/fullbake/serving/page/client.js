// Ask the server. Refusals become ServerError, with the word for its kind and the server's own sentence.

const STORED = "fullbake-api-key";
const LONGEST_WAIT = 30;
const MOST_WAITING = 600;

export class ServerError extends Error {
  constructor(kind, status, detail, retryAfter = null) {
    super(detail);
    this.kind = kind;
    this.status = status;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

export function storeKey(key) {
  sessionStorage.setItem(STORED, key);
}

export function hasKey() {
  return Boolean(sessionStorage.getItem(STORED));
}

export async function listModels() {
  return await ask("v1/models");
}

// One request. path: relative to the page, so that a server behind a prefix works.
export async function ask(path, body = undefined, signal = undefined) {
  const headers = {};
  const key = sessionStorage.getItem(STORED);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const request = { method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), request);
    if (response.ok) return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("network", 0, "");
  }
  throw await refusalOf(response);
}

const KINDS = { 401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "too_large", 429: "overloaded",
  503: "unavailable", 504: "timeout" };

async function refusalOf(response) {
  let found = {};
  try {
    found = (await response.json()).error ?? {};
  } catch {
    // a proxy's own page, not this server's JSON
  }
  const kind = typeof found.kind === "string" ? found.kind : KINDS[response.status] ?? (response.status < 500 ? "invalid" : "internal");
  const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
  return new ServerError(kind, response.status, String(found.message ?? ""), Number.isFinite(seconds) ? seconds : null);
}

// One request that waits while the server is busy or restarts, up to ten minutes. onWait(seconds) is called before each wait.
export async function askPatiently(path, body, signal, onWait) {
  let waited = 0;
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask(path, body, signal);
    } catch (error) {
      if (!(error instanceof ServerError) || !["overloaded", "unavailable", "network"].includes(error.kind)) throw error;
      const least = Math.max(error.retryAfter ?? 0, 2 ** Math.min(tries, 5) / 2);
      // requests that were refused together do not come back together
      const seconds = Math.min(least, LONGEST_WAIT) * (1 + 0.3 * Math.random());
      waited += seconds;
      if (waited > (error.kind === "network" ? 30 : MOST_WAITING)) throw error;
      onWait(seconds);
      await sleep(seconds, signal);
    }
  }
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
