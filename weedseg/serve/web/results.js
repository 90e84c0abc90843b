// The parts of a finished job's page: figures, table, problems, files.
import { el } from "./dom.js";
import { roleArea, roleShare } from "./classes.js";
import { area, count, percent, sentence, whole } from "./format.js";
import { SortableTable } from "./table.js";

/** What everybody has to know about the model's accuracy before they use a figure. */
export function modelNote(name, model) {
  return el(
    "div", { class: "warning", role: "note" },
    el("strong", {}, caution(model)), el("p", {}, accuracy(name, model)),
  );
}

/** The same in a few words. */
export function caution(model) {
  if (!model) return "Accuracy unknown";
  return model.evaluated ? "Not evaluated on your photos" : "Never evaluated";
}

function accuracy(name, model) {
  if (!model) return `Model ${name} is no longer on this service, so nothing can be said about its accuracy.`;
  const holds = "These figures hold for that crop only; on any other crop this model is not evaluated at all.";
  return `Model ${name}. ${sentence(model.evaluation_note)}${model.evaluated ? ` ${holds}` : ""}`;
}

export function downloads(id) {
  const files = [
    ["csv", "Table (CSV)", { download: "", class: "button down" }],
    ["masks.zip", "Masks (zip)", { download: "", class: "button down" }],
    ["report.html", "Report", { target: "_blank", rel: "noopener", class: "button away" }],
  ];
  return files.map(([file, label, options]) => el(
    "a", { href: `/jobs/${id}/results/${file}`, ...options },
    label, options.target ? el("span", { class: "unseen" }, " (opens in a new tab)") : null,
  ));
}

/** Headline figures over all photos. */
export function summary(photos, job) {
  if (photos.length === 0) return [];
  const weeds = photos.map(({ summary: row }) => roleShare(row, "weed"));
  const crops = photos.map(({ summary: row }) => roleShare(row, "crop"));
  const patches = photos.reduce((sum, photo) => sum + photo.summary.num_patches, 0);
  const figures = [
    ["Weed cover", percent(mean(weeds)), photos.length === 1 ? "of the photo is weed" : "of a photo is weed, on average"],
    ["Crop cover", percent(mean(crops)), photos.length === 1 ? "of the photo is crop" : "of a photo is crop, on average"],
    ["Weed patches", patches.toLocaleString("en-GB"), `in ${count(photos.length, "photo")}`],
  ];
  if (photos.length > 1) {
    figures.splice(1, 0, ["Weediest photo", percent(Math.max(...weeds)), `the cleanest has ${percent(Math.min(...weeds))}`]);
  }
  if (job.inputs.mm_per_px) {
    const total = photos.reduce((sum, photo) => sum + (roleArea(photo.summary, "weed") ?? 0), 0);
    figures.push(["Weed area", area(total), `in all, at ${job.inputs.mm_per_px} mm per pixel`]);
  }
  return [el(
    "dl", { class: "figures" },
    figures.map(([name, value, meaning]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value), meaning))),
  )];
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function photoTable(hasAreas, onOpen) {
  const weed = ({ summary: row }) => roleShare(row, "weed");
  const crop = ({ summary: row }) => roleShare(row, "crop");
  const weedArea = ({ summary: row }) => roleArea(row, "weed");
  const columns = [
    {
      key: "photo", label: "Photo", value: ({ photo }) => photo,
      cell: (photo) => el("button", {
        type: "button", class: "link", "data-number": photo.number, on: { click: () => onOpen(photo) },
      }, photo.photo),
    },
    { key: "weed", label: "Weed cover", number: true, value: weed, cell: (photo) => bar(weed(photo), "weed") },
    { key: "crop", label: "Crop cover", number: true, value: crop, cell: (photo) => bar(crop(photo), "crop") },
    ...(hasAreas ? [{
      key: "area", label: "Weed area", number: true, value: weedArea,
      cell: (photo) => (weedArea(photo) === null ? "" : area(weedArea(photo))),
    }] : []),
    {
      key: "patches", label: "Weed patches", number: true, value: ({ summary: row }) => row.num_patches,
      cell: ({ summary: row }) => row.num_patches.toLocaleString("en-GB"),
    },
    {
      key: "confidence", label: "Confidence", number: true, value: ({ summary: row }) => row.confidence,
      cell: ({ summary: row }) => whole(row.confidence),
    },
    {
      key: "warnings", label: "Warnings", value: ({ summary: row }) => row.warnings.join(" ") || null,
      cell: ({ summary: row }) => (row.warnings.length === 0
        ? el("span", { class: "quiet" }, "none")
        : row.warnings.map((text) => el("span", { class: "row-warning" }, text))),
    },
  ];
  return new SortableTable("All photos", columns, { key: "weed", down: true });
}

/** Tell the table's bars which cover fills them. */
export function scaleBars(table, photos) {
  for (const role of ["weed", "crop"]) {
    const most = Math.max(1e-6, ...photos.map(({ summary: row }) => roleShare(row, role)));
    table.root.style.setProperty(`--most-${role}`, most);
  }
}

function bar(share, role) {
  return el("span", { class: `cover ${role}`, vars: { "--share": share } }, percent(share));
}

/** Photos without a result, each with the reason. */
export function problems(photos) {
  if (photos.length === 0) return [];
  return [el(
    "section", { "aria-labelledby": "left-out" },
    el("h2", { id: "left-out" }, `${count(photos.length, "photo")} without a result`),
    el("ul", { class: "left-out" }, photos.map(({ photo, problem }) => el(
      "li", {}, el("strong", {}, photo), el("p", {}, withoutName(photo, problem)),
    ))),
  )];
}

/** The sentence without the name before it, which stands above it already. */
function withoutName(name, text) {
  const rest = text.startsWith(`${name}:`) ? text.slice(name.length + 1).trim() : text;
  const begun = rest === text ? text : rest[0].toUpperCase() + rest.slice(1);
  return sentence(begun);
}
