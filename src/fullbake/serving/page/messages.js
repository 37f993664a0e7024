// Show errors: in the page's language first, then the server's own sentence.

import { ServerError } from "./client.js";
import { fill, make, setChildren } from "./dom.js";
import { formatCount, languageTag, words } from "./language.js";
import { TableError } from "./tables.js";

export function clearMessage(place) {
  place.replaceChildren();
}

export function showMessage(place, ...children) {
  setChildren(place, make("div", { class: "notice" }, ...children));
}

export function showError(place, error) {
  showMessage(place, ...describeError(error));
}

function describeError(error) {
  if (error instanceof TableError) return [describeTableError(error)];
  if (error instanceof ServerError) return describeServerError(error);
  if (error instanceof DOMException) return [make("p", {}, words("problem.unreadable"))];
  console.error(error);
  return [make("p", {}, words("problem.program"))];
}

function describeTableError({ key, values }) {
  const numbers = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, typeof value === "number" ? formatCount(value) : value]),
  );
  if (!Object.hasOwn(values, "column")) return make("p", {}, words(`problem.${key}`, numbers));
  const { column, ...others } = numbers;
  return make("p", {}, fill(words(`problem.${key}`, others), "column", column));
}

function describeServerError(error) {
  const seconds = formatCount(Math.max(1, Math.round(error.retryAfter ?? 1)));
  const kind = words(`error.${error.kind}`, { seconds });
  const first = kind.startsWith("error.") ? words("error.invalid") : kind;
  return [
    error.row === undefined ? null : make("p", {}, words("problem.row", { row: formatCount(error.row) })),
    make("p", {}, first),
    error.detail
      ? make("p", { class: "soft small" }, languageTag() === "en" ? null : `${words("error.detail")} `,
          make("span", { lang: "en" }, error.detail))
      : null,
  ];
}
