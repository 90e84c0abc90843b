// Past uploads: what was handed in, how it ended, until when it is kept.
import { call, fetchJson, problemBox } from "./api.js";
import { announce, ask, button, el, heading, show } from "./dom.js";
import { count, day, title, when } from "./format.js";

const PAGE = 50;
export const STATES = {
  accepted: "Waiting",
  running: "Running",
  successful: "Finished",
  failed: "Failed",
  dismissed: "Cancelled",
};

export async function showHistory(signal) {
  const list = el("ul", { class: "jobs" });
  const place = el("div", {}, el("p", { class: "quiet" }, "Loading …"));
  const more = button("Show older ones", () => load(), { hidden: true });
  show("Past uploads", heading("Past uploads"), place, list, more);
  let offset = 0;

  async function load() {
    try {
      const { jobs } = await fetchJson(`/jobs?limit=${PAGE}&offset=${offset}`, { signal, cache: "no-store" });
      offset += jobs.length;
      more.hidden = jobs.length < PAGE;
      list.append(...jobs.map((job) => entry(job, noteEmpty)));
      noteEmpty();
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(problemBox(error, load));
    }
  }

  function noteEmpty() {
    place.replaceChildren(...(list.children.length === 0 ? [nothing()] : []));
  }

  await load();
}

function nothing() {
  return el(
    "div", { class: "card" },
    el("p", {}, "Nothing here yet. Photos that you hand in show up here with their results."),
    el("a", { class: "button main", href: "#/" }, "Choose photos"),
  );
}

function entry(job, onChange) {
  const photos = job.photos.total || job.inputs.photos.length;
  const facts = [when(job.created), count(photos, "photo"), `model ${job.inputs.model}`];
  if (job.photos.bad) facts.push(`${job.photos.bad} with a problem`);
  if (job.expires) facts.push(`kept until ${day(job.expires)}`);
  const name = title(job.inputs.photos);
  const active = job.status === "accepted" || job.status === "running";
  const row = el(
    "li", { class: "card" },
    el(
      "div", {},
      el("a", { class: "name", href: `#/jobs/${job.jobID}` }, name),
      el("span", { class: `state ${job.status}` }, active ? `${STATES[job.status]}, ${job.progress} %` : STATES[job.status]),
      el("p", { class: "quiet" }, facts.join(" · ")),
    ),
    active ? null : button("Delete", async () => {
      if (await deleteJob(job.jobID, name, row)) {
        row.remove();
        onChange();
        document.querySelector("h1").focus();
      }
    }, { "aria-label": `Delete ${name}, ${when(job.created)}` }),
  );
  return row;
}

/** Ask, then delete a finished job; problems are shown in `place`. */
export async function deleteJob(id, name, place) {
  const sure = await ask("Delete this upload?", `${name}: photos and results will be gone for good.`, "Delete");
  if (!sure) return false;
  try {
    await call(`/jobs/${id}`, { method: "DELETE" });
  } catch (error) {
    place.append(problemBox(error));
    return false;
  }
  announce("Deleted.");
  return true;
}
