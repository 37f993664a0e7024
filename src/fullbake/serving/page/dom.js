// Make elements. Children that are strings become text nodes: no text of a user is ever read as HTML.

export function byId(id) {
  return document.getElementById(id);
}

// make("p", {class: "soft", onclick: f}, "text", element): names that start with "on" are listeners, others attributes.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

// Characters that reorder their neighbors or cannot be seen, as in core/escaping.py: two labels must not look alike.
const HIDDEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\p{Cs}\u{e0000}-\u{e007f}]/gu;

function escaped(character) {
  if (character === "\r") return "\\r";
  const number = character.codePointAt(0);
  const [sign, digits] = number < 256 ? ["x", 2] : number < 65536 ? ["u", 4] : ["U", 8];
  return `\\${sign}${number.toString(16).padStart(digits, "0")}`;
}

export function visible(text) {
  return String(text).replace(HIDDEN, escaped);
}

// A label, a column or a word of a user: isolated, so that its direction of writing does not turn what stands around it.
export function foreign(text, attributes = {}) {
  return make("bdi", attributes, visible(text));
}

// Words with one foreign text within: fill("a “{label}”", "label", name).
export function fill(sentence, name, text) {
  const [before, ...after] = sentence.split(`{${name}}`);
  return make("span", {}, before, ...(after.length ? [foreign(text), after.join("")] : []));
}

export function setChildren(element, ...children) {
  element.replaceChildren(...children.filter(child => child !== null && child !== undefined));
}
