// Small helpers for the document. Text only ever goes in as text, never as HTML.

/**
 * Make an element.
 * @param {string} tag
 * @param {Object} options attributes; `on` holds listeners, `vars` CSS variables; false leaves out.
 * @param {...(Node|string|null)} children
 */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  const { on = {}, vars = {}, ...attributes } = options;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function button(label, listener, options = {}) {
  return el("button", { type: "button", class: "button", on: { click: listener }, ...options }, label);
}

/**
 * Say beside each field what is wrong with it; a field that is hidden cannot be wrong.
 * @param {Array} fields [input, place of the message, message] each
 * @returns {Array} the inputs that are wrong
 */
export function wrongFields(fields) {
  return fields.filter(([field, note, told]) => {
    const wrong = field.offsetParent !== null && !field.checkValidity();
    note.textContent = wrong ? told : "";
    field.setAttribute("aria-invalid", String(wrong));
    return wrong;
  }).map(([field]) => field);
}

/** Tell people who cannot see the page what has changed. */
export function announce(text) {
  const place = document.getElementById("announcer");
  if (place.textContent !== text) place.textContent = text;
}

/** Ask before something is lost; resolves to true or false. */
export function ask(title, text, yes) {
  const dialog = document.getElementById("question");
  document.getElementById("question-title").textContent = title;
  document.getElementById("question-text").textContent = text;
  document.getElementById("question-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let entered = false;

/** Fill the page with a view and put the focus on its heading, but when the page has just come. */
export function show(title, ...children) {
  document.title = title === "weedseg" ? title : `${title} | weedseg`;
  const main = document.getElementById("main");
  main.replaceChildren(...children);
  window.scrollTo(0, 0);
  if (entered) main.querySelector("h1")?.focus({ preventScroll: true });
  entered = true;
}

export function heading(text) {
  return el("h1", { tabindex: "-1" }, text);
}
