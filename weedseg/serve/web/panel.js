// The photo that is being looked at: picture, classes, patches.
import { fetchJson, problemBox } from "./api.js";
import { button, el } from "./dom.js";
import { roleArea, roleShare, withColours } from "./classes.js";
import { area, count, percent, pixels, whole } from "./format.js";
import { caution } from "./results.js";
import { Viewer } from "./viewer.js";

const PATCHES = 5;

export class PhotoPanel {
  /**
   * @param {function(number): void} onStep called with -1 or 1: the photo before or after
   */
  constructor(onStep) {
    Object.assign(this, { onStep, viewer: new Viewer() });
    this.root = this.#build();
  }

  #build() {
    this.name = el("h2", { id: "photo-name", tabindex: "-1" });
    this.place = el("p", { class: "quiet" });
    this.before = button("‹", () => this.#step(-1), { "aria-label": "Previous photo", class: "button icon" });
    this.after = button("›", () => this.#step(1), { "aria-label": "Next photo", class: "button icon" });
    this.cover = el("p", { class: "cover-line" });
    this.classes = el("fieldset", { class: "classes-list" });
    this.patches = el("div");
    this.notes = el("div");
    this.problem = el("div");
    const side = el(
      "div", { class: "side" },
      el("div", { class: "photo-title" }, el("div", {}, this.name, this.place), el("div", { class: "steps" }, this.before, this.after)),
      this.problem, this.cover, this.classes, this.notes, this.patches,
    );
    return el("section", { class: "photo-panel", "aria-labelledby": "photo-name", hidden: true }, this.viewer.root, side);
  }

  #step(by) {
    this.stepped = true; // the button must not lose the focus where the row ends
    this.onStep(by);
  }

  focus() {
    this.name.focus({ preventScroll: true });
    this.root.scrollIntoView({ block: "start" });
  }

  tellPlace(number, total) {
    this.place.textContent = `Photo ${number} of ${total}`;
    this.before.disabled = number <= 1;
    this.after.disabled = number >= total;
    const lost = document.activeElement === document.body || document.activeElement?.disabled;
    if (lost && this.stepped) (this.before.disabled ? this.after : this.before).focus();
    this.stepped = false;
  }

  /** Show a photo; its details follow as soon as they are there. */
  async show(photo, signal) {
    this.current = photo;
    const { summary } = photo;
    this.root.hidden = false;
    this.name.textContent = photo.photo;
    this.problem.replaceChildren();
    this.patches.replaceChildren();
    this.#showCover(summary);
    this.#showClasses(withColours(summary.classes));
    this.notes.replaceChildren(...summary.warnings.map((text) => el("p", { class: "warning" }, text)));
    try {
      const answer = await fetchJson(photo.links.json, { signal });
      if (this.current !== photo) return;
      this.notes.append(el("p", { class: "hint" }, `${caution(answer)} (model ${answer.model.name}).`));
      this.#showPatches(answer, summary.num_patches);
      const alt = `${photo.photo}: ${percent(roleShare(summary, "weed"))} weed, ${percent(roleShare(summary, "crop"))} crop`;
      await this.viewer.show(alt, photo.links, withColours(answer.classes));
    } catch (error) {
      if (error.name === "AbortError" || this.current !== photo) return;
      this.problem.replaceChildren(problemBox(error, () => this.show(photo, signal)));
    }
  }

  #showCover(summary) {
    const weedArea = roleArea(summary, "weed");
    this.cover.replaceChildren(
      el("b", {}, percent(roleShare(summary, "weed"))),
      weedArea === null ? " of the photo is weed" : ` of the photo is weed, ${area(weedArea)}`,
    );
  }

  #showClasses(classes) {
    const rows = classes.filter((row) => row.id !== 0).map((row) => el(
      "label", {},
      el("input", {
        type: "checkbox", checked: !this.viewer.hidden.has(row.id), "data-class": row.name,
        on: { change: (event) => this.viewer.toggle(row.id, event.target.checked) },
      }),
      el("span", { class: "swatch", vars: { "--colour": row.colour } }),
      el("span", { class: "class-name" }, row.name),
      el("span", { class: "class-share" }, percent(row.coverage)),
    ));
    const soil = classes.find((row) => row.id === 0);
    this.classes.replaceChildren(
      el("legend", {}, "Coloured in the photo"), ...rows,
      el("p", { class: "hint" }, `The rest, ${percent(soil.coverage)}, is ${soil.name}.`),
    );
  }

  #showPatches(answer, total) {
    if (total === 0) {
      this.patches.replaceChildren(el("p", {}, "No weed patch in this photo."));
      return;
    }
    const body = el("tbody");
    const scale = this.#areaPerPixel(answer);
    const fill = (num) => body.replaceChildren(...answer.patches.slice(0, num).map((patch, place) => this.#patchRow(patch, place, answer, scale)));
    fill(PATCHES);
    const all = answer.patches.length;
    const label = all === total ? `Show all ${all}` : `Show the largest ${all}`;
    const more = button(label, () => { fill(all); more.hidden = true; }, { hidden: all <= PATCHES });
    this.patches.replaceChildren(
      el("h3", {}, count(total, "weed patch", "weed patches")),
      el("div", { class: "scroll patches", tabindex: "0", role: "region", "aria-label": "Weed patches" }, el(
        "table", {},
        el("caption", { class: "unseen" }, "Weed patches, the largest first"),
        el("thead", {}, el("tr", {}, ["Patch", "Size", "Confidence"].map((text, place) => el(
          "th", { scope: "col", class: place ? "number" : false }, text,
        )))),
        body,
      )),
      more,
    );
  }

  #patchRow(patch, place, answer, scale) {
    const show = el("button", {
      type: "button", class: "link", "aria-pressed": "false",
      on: { click: () => this.#mark(show, patch, answer) },
    }, `Show ${place + 1}`);
    return el(
      "tr", {}, el("th", { scope: "row" }, show),
      el("td", { class: "number" }, scale === null ? pixels(patch.area_px) : area(scale * patch.area_px)),
      el("td", { class: "number" }, whole(patch.confidence)),
    );
  }

  #mark(pressed, patch, answer) {
    const on = pressed.getAttribute("aria-pressed") !== "true";
    for (const other of this.patches.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", "false");
    pressed.setAttribute("aria-pressed", String(on));
    this.viewer.showPatch(on ? patch : null, answer.width, answer.height);
  }

  #areaPerPixel(answer) {
    const row = answer.classes.find(({ area_px: px, area_m2: m2 }) => px > 0 && typeof m2 === "number");
    return row ? row.area_m2 / row.area_px : null;
  }
}
