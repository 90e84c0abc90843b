// One job: how far it is, then its results.
import { call, fetchJson, patiently, pause, problemBox } from "./api.js";
import { announce, ask, button, el, heading, show } from "./dom.js";
import { roleShare } from "./classes.js";
import { count, day, percent, sentence, title, when } from "./format.js";
import { STATES, deleteJob } from "./history.js";
import { PhotoPanel } from "./panel.js";
import { mapView } from "./map.js";
import { downloads, modelNote, photoTable, problems, scaleBars, summary } from "./results.js";

const PAGE = 1000;
const POLL_S = 1;
const SLOWER_S = 3;
const MANY = 200;
const MOST_TRIES = 30;

export async function showJob(signal, id) {
  const page = new JobPage(id, signal);
  show("Results", heading("Results"), el("p", { class: "quiet" }, "Loading …"));
  await page.run();
}

/** Say what is going on. */
function doing({ photos, shards, progress }) {
  if (shards.total > 0 && shards.done === shards.total) return "Writing the map and its report …";
  if (shards.total > 0) return `Mapping: ${shards.done} of ${count(shards.total, "part")} done`;
  return photos.total === 0 ? "Getting ready …" : `Analysing: ${progress} % done`;
}

class JobPage {
  constructor(id, signal) {
    Object.assign(this, { id, signal, photos: [], built: false });
  }

  async run() {
    try {
      await this.#follow();
    } catch (error) {
      if (error.name === "AbortError" || error.status === 401) return;
      const again = error.status === 404 ? null : () => new JobPage(this.id, this.signal).run();
      show("Results", heading("Results"), problemBox(error, again), el("a", { class: "button", href: "#/history" }, "Past uploads"));
    }
  }

  /** Ask again and again until the job has ended. */
  async #follow() {
    let seen = "";
    for (;;) {
      const job = await this.#ask();
      if (!this.built) await this.#build(job);
      const news = `${job.status} ${job.progress} ${job.photos.total} ${job.shards.done}`;
      if (news !== seen) await this.#update(job);
      seen = news;
      if (job.status !== "accepted" && job.status !== "running") return;
      await pause(job.photos.total > MANY ? SLOWER_S : POLL_S, this.signal);
    }
  }

  #ask() {
    const task = async () => (await call(`/jobs/${this.id}`, { signal: this.signal, cache: "no-store" })).json();
    return patiently(task, this.signal, MOST_TRIES, (seconds) => {
      if (this.built) this.#tellProgress(`Connection interrupted; asking again in ${Math.ceil(seconds)} s.`);
    });
  }

  async #build(job) {
    this.built = true;
    const { models } = await fetchJson("/v1/models", { signal: this.signal });
    this.model = models.find(({ name }) => name === job.inputs.model) ?? null;
    this.name = title(job.inputs.photos);
    this.state = el("span", { class: "state" });
    this.facts = el("p", { class: "quiet" });
    this.actions = el("div", { class: "buttons" });
    this.progress = el("div");
    this.note = modelNote(job.inputs.model, this.model);
    this.summary = el("div");
    this.problems = el("div");
    this.panel = new PhotoPanel((step) => this.#step(step));
    this.table = photoTable(Boolean(job.inputs.mm_per_px), (photo) => {
      this.#open(photo, true);
      this.panel.focus();
    });
    this.table.isCurrent = (photo) => photo.number === this.current?.number;
    this.tableSection = el(
      "section", { "aria-labelledby": "all-photos", hidden: true },
      el("h2", { id: "all-photos" }, "All photos"), this.table.root,
      el("p", { class: "hint" },
        "Cover is the share of the photo. A patch is a connected area of weed; plants that touch count as one. ",
        "The bars compare the photos with each other. Confidence is what the model says of itself, no measured accuracy."),
    );
    show(
      this.name,
      el("div", { class: "title" }, el("div", {}, heading(this.name), this.facts), this.actions),
      this.progress, this.note, this.summary, this.panel.root,
      this.tableSection, this.problems,
    );
  }

  async #update(job) {
    this.state.textContent = STATES[job.status];
    this.state.className = `state ${job.status}`;
    const facts = [when(job.created), job.photos.total ? count(job.photos.total, "photo") : ""];
    if (job.shards.total) facts.push("orthomosaic", job.inputs.crop);
    if (job.inputs.mm_per_px) facts.push(`${job.inputs.mm_per_px} mm per pixel`);
    if (job.expires && job.status !== "dismissed") facts.push(`kept until ${day(job.expires)}`);
    this.facts.replaceChildren(this.state, facts.filter(Boolean).join(" · "));
    this.#showProgress(job);
    this.#showActions(job);
    if (job.status === "dismissed") {
      for (const part of [this.note, this.summary, this.panel.root, this.tableSection, this.problems]) part.remove();
    } else if (job.photos.total > 0) {
      await this.#loadPhotos(job);
    } else if (job.shards.total > 0 && job.status === "successful") {
      this.summary.replaceChildren(...mapView(await fetchJson(`/jobs/${this.id}/results`, { signal: this.signal })));
    }
  }

  #showProgress(job) {
    if (job.status === "accepted" || job.status === "running") {
      this.#tellProgress(doing(job), job.progress);
      return;
    }
    const told = {
      successful: "",
      failed: job.message ? sentence(job.message) : "The analysis failed.",
      dismissed: "This analysis was cancelled; it has no results.",
    }[job.status];
    announce(told || "The results are here.");
    this.progress.replaceChildren(...(told ? [el(
      "div", { class: job.status === "failed" ? "problem" : "card" },
      el("strong", {}, job.status === "failed" ? "No results" : "Cancelled"), el("p", {}, told),
      el("a", { class: "button", href: "#/" }, "Choose other photos"),
    )] : []));
  }

  #tellProgress(text, done = null) {
    const bar = this.progress.querySelector("progress") ?? el("progress", { max: 100, value: 0, "aria-label": "Analysis" });
    if (done !== null) bar.value = done;
    this.progress.replaceChildren(el("div", { class: "card" }, el("p", {}, text), bar));
    const tenth = done === null ? text : Math.floor(done / 10);
    if (tenth !== this.tenth) announce(text);
    this.tenth = tenth;
  }

  #showActions(job) {
    const active = job.status === "accepted" || job.status === "running";
    const done = job.status === "successful";
    const focused = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(
      ...(done && job.photos.total > 0 ? downloads(this.id) : []),
      active ? button("Cancel", () => this.#cancel()) : button("Delete", () => this.#delete()),
    );
    if (focused) this.actions.querySelector("a, button").focus();
  }

  async #loadPhotos(job) {
    const photos = [];
    while (photos.length < job.photos.total) {
      const address = `/jobs/${this.id}/photos?limit=${PAGE}&offset=${photos.length}`;
      const some = await fetchJson(address, { signal: this.signal, cache: "no-store" });
      if (some.length === 0) break;
      photos.push(...some);
    }
    this.photos = photos;
    const good = photos.filter((photo) => photo.summary);
    scaleBars(this.table, good);
    this.table.set(good);
    this.tableSection.hidden = good.length === 0;
    this.problems.replaceChildren(...problems(photos.filter((photo) => photo.problem)));
    this.summary.replaceChildren(...summary(good, job));
    const begin = good.length > 0 && !this.chosen && (!this.current || job.status === "successful");
    if (begin) this.#open(this.table.sorted[0]);
    else this.#tellPlace();
  }

  /** Show a photo; one that a person has chosen stays when more come in. */
  #open(photo, wanted = false) {
    this.chosen ||= wanted;
    const changed = this.current?.number !== photo.number;
    this.current = photo;
    if (changed) {
      this.panel.show(photo, this.signal);
      this.table.refresh();
    }
    this.#tellPlace();
  }

  #step(by) {
    const order = this.table.sorted;
    const place = order.findIndex(({ number }) => number === this.current.number);
    const next = order[place + by];
    if (!next) return;
    this.#open(next, true);
    announce(`${next.photo}, photo ${place + by + 1} of ${order.length}, ${percent(roleShare(next.summary, "weed"))} weed.`);
  }

  #tellPlace() {
    if (!this.current) return;
    const order = this.table.sorted;
    const place = order.findIndex(({ number }) => number === this.current.number);
    this.panel.tellPlace(place + 1, order.length);
  }

  async #cancel() {
    const sure = await ask("Cancel this analysis?", "What is not done yet stays undone, and there will be no results.", "Cancel it");
    if (!sure) return;
    try {
      await call(`/jobs/${this.id}`, { method: "DELETE" });
    } catch (error) {
      this.progress.append(problemBox(error));
    }
  }

  async #delete() {
    if (await deleteJob(this.id, this.name, this.progress)) location.hash = "#/history";
  }
}
