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

// A label, a column or a word of a user: isolated, so that its direction of writing does not turn what stands around it.
export function foreign(text, attributes = {}) {
  return make("bdi", attributes, String(text));
}

// Words with one foreign text within: fill("a “{label}”", "label", name).
export function fill(sentence, name, text) {
  const [before, ...after] = sentence.split(`{${name}}`);
  return make("span", {}, before, ...(after.length ? [foreign(text), after.join("")] : []));
}

export function setChildren(element, ...children) {
  element.replaceChildren(...children.filter(child => child !== null && child !== undefined));
}
