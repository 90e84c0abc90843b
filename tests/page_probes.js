// What tests/e2e/test_web_page.py asks a page; added to every page before its own scripts.
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));

const visible = (node) => node.checkVisibility();
const textOf = (node) => (node?.textContent ?? "").trim();

window.probes = {
  /** Things that a screen reader could not name. */
  nameless() {
    const kinds = "a, button, input, select, progress, canvas, img, [role=region], dialog, table, fieldset, nav, section, aside";
    const label = (node) => (node.getAttribute("aria-labelledby") ?? "").split(" ").some((id) => textOf(document.getElementById(id)));
    const named = (node) => node.getAttribute("aria-label") || node.getAttribute("aria-hidden") || label(node)
      || [...(node.labels ?? [])].some(textOf)
      || (node.matches("img") && node.getAttribute("alt") !== null)
      || (node.matches("a, button") && textOf(node))
      || textOf(node.querySelector("caption, legend, h1"));
    return [...document.querySelectorAll(kinds)].filter(visible).filter((node) => !named(node)).map((node) => node.outerHTML);
  },

  /** References to ids that are not there, ids that are there twice, headings out of order. */
  broken() {
    const found = [];
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    if (new Set(ids).size !== ids.length) found.push("an id is there twice");
    for (const name of ["for", "aria-describedby", "aria-labelledby"]) {
      for (const node of document.querySelectorAll(`[${name}]`)) {
        const missing = node.getAttribute(name).split(" ").filter((id) => !document.getElementById(id));
        found.push(...missing.map((id) => `${name}=${id}`));
      }
    }
    const heads = [...document.querySelectorAll("main :is(h1, h2, h3)")].filter(visible);
    const levels = heads.map((head) => Number(head.tagName[1]));
    if (levels.filter((level) => level === 1).length !== 1) found.push("not one h1");
    if (levels.some((level, i) => i > 0 && level > levels[i - 1] + 1)) found.push("a heading level is left out");
    return found;
  },

  /** Texts with a contrast below WCAG 2.2 AA. */
  faint() {
    const channels = (css) => css.match(/[\d.]+/g).map(Number);
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const [r, g, b, a = 1] = channels(getComputedStyle(at).backgroundColor);
        if (a === 1) return [r, g, b];
      }
      return [255, 255, 255];
    };
    const ratio = (node) => {
      const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode;
      const node = text.parentElement;
      const counts = textOf(text) && visible(node) && !node.closest(":disabled, .unseen, .skip, noscript");
      const least = parseFloat(getComputedStyle(node).fontSize) >= 24 ? 3 : 4.5;
      if (counts && ratio(node) < least) found.push(`${ratio(node).toFixed(2)}: ${textOf(text)}`);
    }
    return found;
  },

  /** Controls below 24 px, too small for a finger (WCAG 2.2 AA). */
  small() {
    const nodes = document.querySelectorAll("main :is(a, button, input, select), header a, header button");
    const size = (node) => {
      const { width, height } = (node.closest("label") ?? node).getBoundingClientRect();
      return Math.min(width, height);
    };
    return [...nodes].filter((node) => visible(node) && !node.matches(".unseen") && size(node) < 24).map((node) => node.outerHTML);
  },

  /** Share of the picture that the canvas draws in a colour, whatever its opacity. */
  drawn([r, g, b]) {
    const canvas = document.querySelector("canvas.classes");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
      const near = Math.hypot(data[i] - r, data[i + 1] - g, data[i + 2] - b) < 12;
      if (data[i + 3] > 0 && near) count += 1;
    }
    return count / (canvas.width * canvas.height);
  },

  /** What has the focus, and how that is seen. */
  focus() {
    const node = document.activeElement;
    const shown = node.id === "files" ? node.nextElementSibling.querySelector(".button") : node;
    const { outlineStyle, outlineWidth } = getComputedStyle(shown);
    return [node.id || textOf(node), `${outlineStyle} ${outlineWidth}`];
  },
};
