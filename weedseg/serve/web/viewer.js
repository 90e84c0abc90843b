// One photo: classes over it, before and after, how sure the model is, a closer look.
import { Problem } from "./api.js";
import { el } from "./dom.js";
import { classMap, colourMap, rims } from "./classes.js";

const MODES = [
  ["classes", "Classes"],
  ["compare", "Before / after"],
  ["confidence", "Confidence"],
];
const HINTS = {
  classes: "",
  compare: "Left of the line: your photo. Right of it: what the model sees. Drag the line or use the arrow keys.",
  confidence: "Bright: the model is sure. Dark: it hesitates, have a look yourself.",
};
const ZOOMS = [1, 1.5, 2, 3, 4, 6];

export class Viewer {
  constructor() {
    this.opacity = 0.6;
    this.hidden = new Set();
    this.mode = "classes";
    this.zoom = 0;
    this.map = null;
    this.root = this.#build();
    this.#setMode("classes");
  }

  #build() {
    this.photo = el("img", { class: "photo", alt: "", decoding: "async" });
    this.canvas = el("canvas", { class: "classes", "aria-hidden": "true" });
    this.confidence = el("img", { class: "confidence", alt: "", hidden: true });
    this.box = el("div", { class: "patch-box", hidden: true });
    this.line = el("div", { class: "line", hidden: true });
    this.divider = el("input", {
      type: "range", class: "divider", min: 0, max: 100, step: 1, value: 50,
      "aria-label": "Line between before and after, per cent from the left",
      hidden: true,
      on: { input: () => this.#cut() },
    });
    this.picture = el(
      "div", { class: "picture" },
      this.photo, this.canvas, this.confidence, this.box, this.divider, this.line,
    );
    this.stage = el("div", { class: "stage", tabindex: "0", role: "region", "aria-label": "Photo" }, this.picture);
    this.slider = el("input", {
      type: "range", min: 0, max: 100, step: 5, value: 100 * this.opacity, id: "opacity",
      on: { input: () => this.#setOpacity() },
    });
    this.opacityValue = el("output", { for: "opacity" });
    this.opacityControl = el(
      "div", { class: "opacity" },
      el("label", { for: "opacity" }, "Strength of the colours"), this.slider, this.opacityValue,
    );
    this.hint = el("p", { class: "hint" });
    this.#setOpacity();
    return el(
      "div", { class: "viewer" },
      el("div", { class: "toolbar" }, this.#modes(), this.#zoomButtons()),
      this.stage, this.hint, this.opacityControl,
    );
  }

  #modes() {
    const choices = MODES.map(([value, label]) => el(
      "label", {},
      el("input", {
        type: "radio", name: "mode", value, checked: value === this.mode,
        on: { change: () => this.#setMode(value) },
      }),
      el("span", {}, label),
    ));
    return el("fieldset", { class: "modes" }, el("legend", { class: "unseen" }, "Show"), choices);
  }

  #zoomButtons() {
    const step = (by) => () => this.#setZoom(this.zoom + by);
    this.zoomValue = el("output", {}, "1×");
    this.closer = el("button", { type: "button", "aria-label": "Zoom in", on: { click: step(1) } }, "+");
    this.wider = el("button", { type: "button", "aria-label": "Zoom out", on: { click: step(-1) }, disabled: true }, "−");
    return el("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, this.wider, this.zoomValue, this.closer);
  }

  /**
   * Show a photo.
   * @param {string} alt what people hear who cannot see it
   * @param {Object} links of its pictures
   * @param {Array} classes with id, colour and rle
   */
  async show(alt, links, classes) {
    this.classes = classes;
    this.links = links;
    this.map = null;
    this.showPatch(null);
    this.canvas.width = this.canvas.width; // empties it
    this.confidence.removeAttribute("src");
    this.photo.src = links.photo;
    this.photo.alt = alt;
    this.#setMode(this.mode);
    try {
      await this.photo.decode();
    } catch {
      throw new Problem(0, "No picture", "the picture of this photo cannot be loaded");
    }
    if (this.links !== links) return;
    const { naturalWidth: width, naturalHeight: height } = this.photo;
    Object.assign(this.canvas, { width, height });
    this.picture.style.setProperty("--ratio", `${width} / ${height}`);
    this.map = classMap(classes, width, height);
    this.rim = rims(this.map, width, height);
    this.#draw();
  }

  /** Show or hide a class. */
  toggle(id, visible) {
    if (visible) this.hidden.delete(id);
    else this.hidden.add(id);
    this.#drawSoon();
  }

  /** Draw a frame around a patch and bring it into view; null takes the frame away. */
  showPatch(patch, width, height) {
    this.box.hidden = patch === null;
    if (patch === null) return;
    const [x, y, wide, high] = patch.bbox;
    const frame = { "--x": x / width, "--y": y / height, "--w": wide / width, "--h": high / height };
    for (const [name, value] of Object.entries(frame)) this.box.style.setProperty(name, value);
    const { clientWidth, clientHeight, scrollWidth, scrollHeight } = this.stage;
    const left = ((x + wide / 2) / width) * scrollWidth - clientWidth / 2;
    const top = ((y + high / 2) / height) * scrollHeight - clientHeight / 2;
    this.stage.scrollTo({ left, top });
  }

  #setMode(mode) {
    this.mode = mode;
    const compare = mode === "compare";
    const sure = mode === "confidence";
    this.divider.hidden = this.line.hidden = !compare;
    this.canvas.hidden = sure;
    this.confidence.hidden = !sure;
    if (sure && this.links) {
      this.confidence.src = this.links.confidence;
      this.confidence.alt = "How sure the model is, bright where it is sure";
    }
    this.hint.textContent = HINTS[mode];
    this.opacityControl.hidden = sure;
    this.#cut();
  }

  #cut() {
    const share = this.mode === "compare" ? this.divider.value : 0;
    this.picture.style.setProperty("--cut", `${share}%`);
  }

  #setOpacity() {
    this.opacity = this.slider.value / 100;
    this.opacityValue.textContent = `${this.slider.value} %`;
    this.#drawSoon();
  }

  #setZoom(number) {
    const { stage } = this;
    const x = (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth;
    const y = (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight;
    this.zoom = Math.min(ZOOMS.length - 1, Math.max(0, number));
    const factor = ZOOMS[this.zoom];
    stage.style.setProperty("--zoom", factor);
    this.zoomValue.textContent = `${factor}×`;
    this.wider.disabled = this.zoom === 0;
    this.closer.disabled = this.zoom === ZOOMS.length - 1;
    stage.scrollTo(x * stage.scrollWidth - stage.clientWidth / 2, y * stage.scrollHeight - stage.clientHeight / 2);
  }

  #drawSoon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    if (!this.map) return;
    const { width, height } = this.canvas;
    const shown = this.classes.filter((row) => row.id !== 0 && !this.hidden.has(row.id));
    const colours = new Map(shown.map((row) => [row.id, row.colour]));
    const picture = colourMap(this.map, this.rim, width, height, colours, this.opacity);
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }
}
