// From a map to what a sprayer does: from which weed cover on, how much, and what that saves.
import { fetchJson, problemBox } from "./api.js";
import { announce, el, wrongFields } from "./dom.js";
import { count, ground, places, sentence, whole } from "./format.js";

const FIELDS = [
  { name: "threshold", label: "Spray cells from this weed cover on, %", value: "5", min: "0", max: "100", wrong: "Give a number from 0 to 100." },
  { name: "rate", label: "Rate, litres per hectare", value: "200", min: "1", max: "5000", wrong: "Give a number from 1 to 5000." },
  { name: "buffer_m", label: "Also spray cells this close to them, m", value: "0", min: "0", max: "1000", wrong: "Give a number from 0 to 1000." },
];

export class PrescriptionForm {
  /** @param {string} href where the service works prescriptions out */
  constructor(href) {
    Object.assign(this, { href, inputs: {}, notes: {} });
    this.root = this.#build();
  }

  #build() {
    this.submit = el("button", { type: "submit", class: "button main" }, "Work it out");
    this.force = el("input", { type: "checkbox", id: "prescription-force" });
    this.forceLine = el(
      "label", { class: "check", for: "prescription-force", hidden: true },
      this.force, "Make it all the same; I have checked the map in the field",
    );
    this.answer = el("div", { "aria-live": "polite" });
    const form = el(
      "form", {
        novalidate: true,
        on: {
          submit: (event) => this.#onSubmit(event),
          input: ({ target }) => {
            this.answer.replaceChildren(); // it belongs to other numbers
            if (target.getAttribute("aria-invalid") === "true") this.#wrongFields();
          },
        },
      },
      el("div", { class: "options" }, FIELDS.map((field) => this.#field(field))),
      this.forceLine,
      el("div", { class: "buttons" }, this.submit),
    );
    return el(
      "section", { "aria-labelledby": "spray" },
      el("h2", { id: "spray" }, "What to spray"),
      el("p", { class: "hint" }, "A prescription for your sprayer or drone, and what it saves against spraying everywhere."),
      form, this.answer,
    );
  }

  #field({ name, label, value, min, max }) {
    const id = `prescription-${name}`;
    this.inputs[name] = el("input", {
      type: "number", id, min, max, value, step: "any", inputmode: "decimal", required: true, "aria-describedby": `${id}-wrong`,
    });
    this.notes[name] = el("span", { class: "wrong", id: `${id}-wrong`, role: "alert" });
    return el("div", { class: "field" }, el("label", { for: id }, label), this.inputs[name], this.notes[name]);
  }

  #wrongFields() {
    return wrongFields(FIELDS.map(({ name, wrong }) => [this.inputs[name], this.notes[name], wrong]));
  }

  async #onSubmit(event) {
    event.preventDefault();
    const wrong = this.#wrongFields();
    if (wrong.length > 0) {
      wrong[0].focus();
      return;
    }
    const wanted = new URLSearchParams({
      threshold: String(Number(this.inputs.threshold.value) / 100),
      rate: this.inputs.rate.value,
      buffer_m: this.inputs.buffer_m.value,
    });
    if (this.force.checked) wanted.set("force", "true");
    this.submit.disabled = true;
    try {
      const found = await fetchJson(`${this.href}?${wanted}`);
      this.answer.replaceChildren(...this.#told(found));
      announce("The prescription is worked out.");
    } catch (error) {
      this.#refused(error);
    } finally {
      this.submit.disabled = false;
    }
  }

  /** The model is not known well enough: a person may take it on them. */
  #refused(error) {
    if (error.status !== 409) {
      this.answer.replaceChildren(problemBox(error));
      return;
    }
    const [found] = error.detail.split("; ");
    this.forceLine.hidden = false;
    this.answer.replaceChildren(el(
      "div", { class: "warning", role: "alert" },
      el("strong", {}, "Not made: the model is not known well enough"),
      el("p", {}, sentence(error.detail.includes("; expected") ? found : error.detail), " Whoever sprays by it should look at the field first; then tick the box above."),
    ));
  }

  #told(found) {
    if (found.num_treated === 0) {
      return [el("p", {}, "Nothing to spray: no cell reaches that weed cover.")];
    }
    const share = found.treated_m2 / found.field_m2;
    const saved = 1 - found.prescribed_l / found.broadcast_l;
    return [
      el(
        "p", { class: "cover-line" },
        el("b", {}, whole(share)), ` of the field is sprayed: ${ground(found.treated_m2)} in ${count(found.num_treated, "cell")}, `,
        `with ${places(found.prescribed_l)} litres instead of ${places(found.broadcast_l)}, ${whole(saved)} less.`,
      ),
      el("p", { class: found.forced ? "warning" : "hint" }, found.sentences.map(sentence).join(" ")),
      el(
        "div", { class: "buttons" },
        el("a", { class: "button down", href: found.files.href, download: "" }, "Prescription (zip: Shapefile, GeoJSON, KML, ISOXML)"),
      ),
    ];
  }
}
