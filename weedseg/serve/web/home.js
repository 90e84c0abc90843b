// New photos: choose, send, hand in.
import { BoundaryField } from "./boundary.js";
import { fetchJson, patiently, postJson, problemBox } from "./api.js";
import { announce, button, el, heading, show, wrongFields } from "./dom.js";
import { ACCEPT, FORMATS, MAPS, MAX_BYTES, MAX_FILES, droppedFiles, isZip, mayBeMosaic, refusal } from "./files.js";
import { bytes, count } from "./format.js";
import { Upload, forgetAll, removeAll, sendAll } from "./upload.js";

const MOST_TRIES = 8;
let home = null;

/** Show the form; what was chosen, and what is on its way, is still there after other views. */
export function showHome() {
  home ??= new Home();
  show("New photos", home.root);
  home.loadModels();
}

/** Forget the chosen photos and stop sending them. */
export function forgetPhotos() {
  home?.stop();
  home = null;
  forgetAll();
}

class Home {
  constructor() {
    /** @type {Upload[]} */
    this.uploads = [];
    this.rows = new Map();
    this.sending = null;
    this.root = this.#build();
    this.#update();
  }

  #build() {
    this.input = el("input", {
      type: "file", id: "files", class: "unseen", multiple: true, accept: ACCEPT,
      "aria-describedby": "files-help",
      on: { change: () => { this.#add([...this.input.files]); this.input.value = ""; } },
    });
    this.drop = el(
      "div", { class: "drop" },
      this.input,
      el("label", { for: "files" }, el("span", { class: "button main" }, "Choose photos"), " or drop them here"),
      el("p", { class: "hint", id: "files-help" }, `${FORMATS}, or a zip of photos${MAPS ? "; or one GeoTIFF orthomosaic, for a map" : ""}; up to ${bytes(MAX_BYTES)} each.`),
    );
    this.refused = el("div");
    this.list = el("ul", { class: "files", "aria-label": "Chosen files" });
    this.problem = el("div");
    this.bar = el("progress", { max: 1, value: 0, "aria-label": "Upload of all files" });
    this.barText = el("p", { class: "quiet" });
    this.total = el("div", { class: "total", hidden: true }, this.bar, this.barText);
    this.submit = el("button", { type: "submit", class: "button main" });
    this.cancel = button("Cancel upload", () => this.#cancel(), { hidden: true });
    this.clear = button("Clear the list", () => this.#clear(), { hidden: true });
    this.form = el(
      "form", {
        class: "card", novalidate: true,
        on: {
          submit: (event) => this.#onSubmit(event),
          change: () => { this.requestKey = null; },
          input: ({ target }) => { if (target.getAttribute("aria-invalid") === "true") this.#wrongFields(); },
        },
      },
      this.drop, this.refused, this.list, this.#options(), this.#mapOptions(), this.problem, this.total,
      el("div", { class: "buttons" }, this.submit, this.cancel, this.clear),
    );
    const root = el(
      "div", {},
      heading("Find the weeds in your field photos"),
      el("p", { class: "lead" }, "You get the crop and weed cover of every photo, each weed patch marked, and a table for your records."),
      el("div", { class: "columns" }, this.form, this.#advice()),
    );
    this.#listenForDrops(root);
    return root;
  }

  #options() {
    this.resolution = el("input", {
      type: "number", id: "resolution", min: "0.001", max: "1000", step: "any", inputmode: "decimal",
      "aria-describedby": "resolution-help resolution-wrong",
    });
    this.resolutionWrong = el("span", { class: "wrong", id: "resolution-wrong", role: "alert" });
    this.model = el("select", { id: "model", on: { change: () => this.#noteModel() } });
    this.modelField = el("div", { class: "field", hidden: true }, el("label", { for: "model" }, "Model"), this.model);
    return el(
      "div", { class: "options" },
      this.modelField,
      el(
        "div", { class: "field" },
        el("label", { for: "resolution" }, "Ground resolution, mm per pixel ", el("span", { class: "quiet" }, "(optional)")),
        this.resolution, this.resolutionWrong,
        el("p", { class: "hint", id: "resolution-help" },
          "Adds areas in m². A 12-megapixel phone held 1.5 m above the ground has about 0.5 mm per pixel."),
      ),
    );
  }

  /** What maps need to know; seen when the one file may be a mosaic. */
  #mapOptions() {
    this.crop = el("input", { type: "text", id: "crop", maxlength: "100", autocomplete: "off", "aria-describedby": "crop-help" });
    this.cell = el("input", {
      type: "number", id: "cell", min: "0.05", max: "1000", step: "any", inputmode: "decimal", value: "5", required: true,
      "aria-describedby": "cell-wrong",
    });
    this.cellWrong = el("span", { class: "wrong", id: "cell-wrong", role: "alert" });
    this.resample = el("input", { type: "checkbox", id: "resample", checked: true });
    this.boundary = new BoundaryField(() => { this.requestKey = null; });
    this.mapFields = el(
      "fieldset", { class: "map-options", hidden: true },
      el("legend", {}, "If this is an orthomosaic (a GeoTIFF with a CRS)"),
      el(
        "div", { class: "options" },
        el(
          "div", { class: "field" },
          el("label", { for: "crop" }, "Crop on the field"), this.crop,
          el("p", { class: "hint", id: "crop-help" }, "Tells whether the model was tested on this crop."),
        ),
        el("div", { class: "field" }, el("label", { for: "cell" }, "Cells of the map, m"), this.cell, this.cellWrong),
      ),
      this.boundary.root,
      el("label", { class: "check", for: "resample" }, this.resample, "Resize it if the model learnt at another scale"),
    );
    return this.mapFields;
  }

  #advice() {
    this.modelNote = el("div");
    const tips = [
      "Hold the camera straight down, one to two metres above the ground.",
      "Sharp, evenly lit photos work best; avoid your own shadow.",
      "Young row crops are what the models know; closed canopies are not.",
    ];
    return el(
      "aside", { "aria-labelledby": "tips" },
      el("h2", { id: "tips" }, "For good results"),
      el("ul", {}, tips.map((tip) => el("li", {}, tip))),
      this.modelNote,
    );
  }

  #listenForDrops(root) {
    const holds = (event) => root.isConnected && event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      this.drop.classList.toggle("over", !this.sending);
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) this.drop.classList.remove("over");
    });
    document.addEventListener("drop", async (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      this.drop.classList.remove("over");
      if (!this.sending) this.#add(await droppedFiles(event.dataTransfer));
    });
    window.addEventListener("beforeunload", (event) => {
      if (this.sending) event.preventDefault();
    });
  }

  /** Fetch the models: a choice where there are several, and what is known of their accuracy. */
  async loadModels() {
    try {
      const { models, default: usual } = await fetchJson("/v1/models");
      this.models = models;
      const chosen = this.model.value || usual;
      this.model.replaceChildren(...models.map(({ name }) => el("option", { selected: name === chosen }, name)));
      this.modelField.hidden = models.length < 2;
      this.#noteModel();
    } catch (error) {
      if (error.status !== 401) this.modelNote.replaceChildren(problemBox(error, () => this.loadModels()));
    }
  }

  #noteModel() {
    const model = this.models.find(({ name }) => name === this.model.value);
    this.modelNote.replaceChildren(
      el("h2", {}, "Model in use"),
      el("p", {}, el("strong", {}, model.name)),
      el("p", { class: "quiet" }, model.evaluation_note),
    );
  }

  #add(files) {
    const known = new Set(this.uploads.map(({ file }) => `${file.name} ${file.size} ${file.lastModified}`));
    const refused = [];
    for (const file of files) {
      const mark = `${file.name} ${file.size} ${file.lastModified}`;
      if (known.has(mark)) continue;
      known.add(mark);
      const why = this.uploads.length >= MAX_FILES ? `more than ${MAX_FILES} files; put the photos into a zip.` : refusal(file);
      if (why) refused.push([file.name, why]);
      else this.#addUpload(file);
    }
    this.#showRefused(refused);
    this.#update();
    const told = `${count(this.uploads.length, "file")} chosen`;
    announce(refused.length > 0 ? `${told}, ${refused.length} left out.` : `${told}.`);
  }

  #addUpload(file) {
    this.requestKey = null;
    const upload = new Upload(file, file.name, (changed) => this.#onChange(changed));
    const bar = el("progress", { max: Math.max(1, file.size), value: 0, "aria-label": `Upload of ${file.name}`, hidden: true });
    const state = el("span", { class: "quiet state-text" }, bytes(file.size));
    const remove = el("button", {
      type: "button", class: "icon", "aria-label": `Remove ${file.name}`, title: "Remove",
      on: { click: () => this.#remove(upload) },
    }, "×");
    const row = el("li", {}, el("span", { class: "name" }, file.name), state, remove, bar);
    this.uploads.push(upload);
    this.rows.set(upload, { row, bar, state, remove });
    this.list.append(row);
  }

  #showRefused(refused) {
    if (refused.length === 0) {
      this.refused.replaceChildren();
      return;
    }
    const lines = refused.slice(0, 10).map(([name, why]) => el("li", {}, el("strong", {}, name), ": ", why));
    if (refused.length > 10) lines.push(el("li", {}, `and ${refused.length - 10} more`));
    this.refused.replaceChildren(el(
      "div", { class: "warning" },
      el("strong", {}, `${count(refused.length, "file")} left out`), el("ul", {}, lines),
    ));
  }

  #remove(upload) {
    const next = this.rows.get(upload).row.nextElementSibling?.querySelector("button");
    this.rows.get(upload).row.remove();
    this.rows.delete(upload);
    this.uploads = this.uploads.filter((other) => other !== upload);
    this.requestKey = null;
    upload.remove();
    this.#update();
    (next ?? this.input).focus();
    announce(`${upload.name} removed.`);
  }

  #clear() {
    removeAll(this.uploads);
    this.#empty();
    this.input.focus();
  }

  #empty() {
    this.uploads = [];
    this.rows.clear();
    this.list.replaceChildren();
    this.refused.replaceChildren();
    this.problem.replaceChildren();
    this.requestKey = null;
    this.boundary.clear();
    this.#update();
  }

  #onChange(upload) {
    const parts = this.rows.get(upload);
    if (!parts) return;
    const { bar, state } = parts;
    bar.hidden = upload.state === "chosen" || upload.state === "failed";
    bar.value = upload.sentBytes;
    state.classList.toggle("wrong", upload.state === "failed" || upload.note !== "");
    state.textContent = this.#stateText(upload);
    this.#showTotal();
  }

  #stateText(upload) {
    if (upload.note) return upload.note;
    if (upload.state === "failed") return "not uploaded";
    if (upload.state === "done") return `${bytes(upload.file.size)}, uploaded`;
    if (upload.state === "sending") return `${bytes(upload.sentBytes)} of ${bytes(upload.file.size)}`;
    return bytes(upload.file.size);
  }

  #showTotal() {
    const sizes = this.uploads.map(({ file }) => file.size);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const sent = this.uploads.reduce((sum, upload) => sum + Math.min(upload.sentBytes, upload.file.size), 0);
    const done = this.uploads.filter(({ state }) => state === "done").length;
    this.bar.max = Math.max(1, total);
    this.bar.value = sent;
    this.barText.textContent = `${done} of ${count(sizes.length, "file")}, ${bytes(sent)} of ${bytes(total)} uploaded`;
    const tenth = Math.floor((10 * sent) / Math.max(1, total));
    if (this.sending && tenth !== this.tenth) {
      this.tenth = tenth;
      announce(`${10 * tenth} % uploaded.`);
    }
  }

  #update() {
    const num = this.uploads.length;
    const busy = this.sending !== null;
    const mosaic = num === 1 && mayBeMosaic(this.uploads[0].name);
    const kind = mosaic || this.uploads.some(({ name }) => isZip(name)) ? "file" : "photo";
    this.submit.textContent = busy ? "Uploading …" : `Analyse ${num === 0 ? "photos" : count(num, kind)}`;
    this.submit.disabled = busy || num === 0;
    this.cancel.hidden = !busy;
    this.clear.hidden = busy || num === 0;
    this.total.hidden = !busy;
    this.list.hidden = num === 0;
    this.mapFields.hidden = !mosaic;
    this.mapFields.disabled = busy;
    for (const control of [this.input, this.resolution, this.model]) control.disabled = busy;
    this.drop.hidden = busy;
    for (const { remove } of this.rows.values()) remove.hidden = busy;
    this.#showTotal();
  }

  #onSubmit(event) {
    event.preventDefault();
    const wrong = this.#wrongFields();
    if (wrong.length > 0) wrong[0].focus();
    else this.#send();
  }

  #wrongFields() {
    const wrong = wrongFields([
      [this.resolution, this.resolutionWrong, "Give a number from 0.001 to 1000, or leave it empty."],
      [this.cell, this.cellWrong, "Give a number from 0.05 to 1000."],
    ]);
    return this.boundary.wrong && !this.mapFields.hidden ? [...wrong, this.boundary.input] : wrong;
  }

  async #send() {
    this.sending = new AbortController();
    const { signal } = this.sending;
    this.problem.replaceChildren();
    this.#update();
    announce("Upload begins.");
    try {
      await sendAll(this.uploads, signal);
      const failed = this.uploads.filter(({ state }) => state === "failed");
      if (failed.length > 0) this.#showFailed(failed);
      else if (!signal.aborted) await this.#handIn(signal);
    } catch (error) {
      if (error.name !== "AbortError") this.problem.replaceChildren(problemBox(error));
    } finally {
      this.sending = null;
      this.#update();
    }
  }

  #showFailed(failed) {
    this.problem.replaceChildren(
      el("p", { class: "quiet" }, `${count(failed.length, "file")} could not be uploaded. Try again, or remove it from the list.`),
      problemBox(failed[0].problem),
    );
  }

  async #handIn(signal) {
    this.requestKey ??= newKey(); // the same job, however often the answer gets lost
    const inputs = {
      photos: this.uploads.map(({ id }) => id),
      model: this.model.value,
      mm_per_px: this.resolution.value === "" ? null : Number(this.resolution.value),
    };
    if (!this.mapFields.hidden) {
      Object.assign(inputs, {
        crop: this.crop.value.trim(), cell_m: Number(this.cell.value), resample: this.resample.checked, boundary: this.boundary.value,
      });
    }
    const headers = { Prefer: "respond-async", "Idempotency-Key": this.requestKey };
    const job = await patiently(() => postJson("/processes/weed-map/execution", { inputs }, headers), signal, MOST_TRIES);
    removeAll(this.uploads); // the job has its own
    this.#empty();
    if (this.root.isConnected) location.hash = `#/jobs/${job.jobID}`;
  }

  #cancel() {
    this.stop();
    announce("Upload cancelled.");
    this.submit.focus();
  }

  /** Stop sending; what has arrived is not sent again. */
  stop() {
    this.sending?.abort();
  }
}

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((part) => part.toString(16).padStart(2, "0")).join("");
}
