// A finished map of a field: what was found, where the weeds are, the files.
import { el } from "./dom.js";
import { PrescriptionForm } from "./prescription.js";
import { area, count, ground, percent, places, sentence, whole } from "./format.js";

const LABELS = {
  "report.pdf": "Report (PDF)",
  "classes.tif": "Class map (GeoTIFF)",
  "confidence.tif": "Confidence (GeoTIFF)",
  "cells.gpkg": "Cells (GeoPackage)",
  "cells.geojson": "Cells (GeoJSON)",
  "cells.csv": "Cells (CSV)",
  "map.json": "Totals and origin (JSON)",
};

/** Warnings, figures, picture, the weediest cells and the files of a map. */
export function mapView({ map, report }) {
  return [
    ...map.warnings.map((text) => el("p", { class: "warning" }, sentence(text))),
    figures(map),
    picture(map),
    ...worst(map),
    new PrescriptionForm(map.prescription.href).root,
    files(map, report),
  ];
}

function figures({ totals, areas, boundary, cell_m: cell }) {
  const rows = [
    ["Ground looked at", ground(totals.ground_m2), `${count(totals.num_cells, "cell")} of ${cell[0]} by ${cell[1]} m${boundary ? ", inside your boundary" : ""}`],
    ["Weed cover", percent(totals.weed_share), "of the ground, as the model sees it"],
    ["Weed area", ground(totals.weed_m2), interval(areas.weed)],
    ["Crop cover", percent(totals.crop_share), "of the ground, as the model sees it"],
    ["Weed patches", `${places(totals.patches_per_m2)} per m²`, `${totals.num_patches.toLocaleString("en-GB")} in all`],
    ["Confidence", whole(totals.confidence), "what the model says of itself"],
  ];
  return el(
    "dl", { class: "figures" },
    rows.map(([name, value, meaning]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value), meaning))),
  );
}

function interval(weed) {
  if (weed.low_m2 === null) return "as predicted; how far it is off is unknown";
  return `as predicted; corrected ${ground(weed.low_m2)} to ${ground(weed.high_m2)} (95 %)`;
}

function picture(map) {
  const told = `Map of the field, darker where more weeds are: ${percent(map.totals.weed_share)} of the ground is weed`;
  return el(
    "section", { "aria-labelledby": "where" },
    el("h2", { id: "where" }, "Where the weeds are"),
    el("img", { class: "field-map", src: map.overview.href, alt: told }),
    el("ul", { class: "legend", "aria-label": "Weed cover of a cell" }, map.legend.map(({ label, colour }) => el(
      "li", {}, el("span", { class: "swatch", vars: { "--colour": colour } }), label,
    ))),
    map.worst.length > 0 ? el("p", { class: "hint" }, "Numbers mark the weediest cells, listed below.") : null,
  );
}

function worst(map) {
  if (map.worst.length === 0) return [];
  const head = ["Cell", "Latitude, longitude", "Weed cover", "Weed area", "Patches", "Confidence"];
  const rows = map.worst.map((row, place) => el(
    "tr", {},
    el("th", { scope: "row" }, `${place + 1} `, el("span", { class: "quiet" }, row.cell_id)),
    el("td", { class: "number" }, `${row.latitude.toFixed(6)}, ${row.longitude.toFixed(6)}`),
    el("td", { class: "number" }, percent(row.weed_share)),
    el("td", { class: "number" }, area(row.weed_m2)),
    el("td", { class: "number" }, row.num_patches.toLocaleString("en-GB")),
    el("td", { class: "number" }, whole(row.confidence)),
  ));
  return [el(
    "section", { "aria-labelledby": "worst" },
    el("h2", { id: "worst" }, "The weediest cells"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The weediest cells" }, el(
      "table", {},
      el("caption", { class: "unseen" }, "The weediest cells"),
      el("thead", {}, el("tr", {}, head.map((text, place) => el("th", { scope: "col", class: place ? "number" : false }, text)))),
      el("tbody", {}, rows),
    )),
    el("p", { class: "hint" }, "They lie apart, so that they show several places. Look at these first: are they weeds?"),
  )];
}

function files(map, report) {
  return el(
    "section", { "aria-labelledby": "files-of-map" },
    el("h2", { id: "files-of-map" }, "Report and files"),
    el(
      "div", { class: "buttons" },
      el("a", { class: "button away", href: report.href, target: "_blank", rel: "noopener" }, "Report", el("span", { class: "unseen" }, " (opens in a new tab)")),
      map.files.map((file) => el("a", { class: "button down", href: file.href, download: "" }, LABELS[file.rel] ?? file.title)),
    ),
  );
}
