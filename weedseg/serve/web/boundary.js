// The outline of a field from a file: GeoJSON or KML, read in the browser, as GeoJSON for the service.
import { announce, el } from "./dom.js";
import { bytes, count } from "./format.js";

const MAX_BYTES = 10_000_000;
const MAX_CORNERS = 5000;
const NAMES = ["name", "field", "label", "id"];

/** Where a person chooses the outline of the field. */
export class BoundaryField {
  /** @param {() => void} changed called when another one holds */
  constructor(changed) {
    /** GeoJSON for the service; null without. */
    this.value = null;
    this.wrong = false;
    this.changed = changed;
    this.input = el("input", {
      type: "file", id: "boundary", class: "unseen", accept: ".geojson,.json,.kml", "aria-describedby": "boundary-told boundary-help",
      on: { change: () => { this.#read(this.input.files[0]); this.input.value = ""; } },
    });
    this.told = el("span", { id: "boundary-told", role: "status" });
    this.remove = el("button", {
      type: "button", class: "icon", "aria-label": "Remove the boundary", title: "Remove", hidden: true,
      on: { click: () => { this.clear(); announce("Boundary removed."); this.input.focus(); } },
    }, "×");
    this.root = el(
      "div", { class: "boundary" },
      this.input,
      el("label", { for: "boundary" }, el("span", { class: "button" }, "Choose the field's boundary")),
      " ", this.told, this.remove,
      el("p", { class: "hint", id: "boundary-help" }, "Optional; GeoJSON or KML. Ground outside it is mapped but does not count."),
    );
  }

  /** Forget it. */
  clear() {
    this.#hold(null, "", false);
  }

  async #read(file) {
    if (!file) return;
    try {
      const { boundary, told } = await readBoundary(file);
      this.#hold(boundary, told, false);
    } catch (error) {
      this.#hold(null, `${file.name}: ${error.message}`, true);
    }
  }

  #hold(value, told, wrong) {
    Object.assign(this, { value, wrong });
    this.told.textContent = told;
    this.told.classList.toggle("wrong", wrong);
    this.input.setAttribute("aria-invalid", String(wrong));
    this.remove.hidden = told === "";
    this.changed();
  }
}

/**
 * Read a boundary.
 * @param {File} file
 * @returns {Promise<{boundary: Object, told: string}>} a collection of features, and what it is in words
 * @throws {Error} with a sentence for the person who chose the file
 */
export async function readBoundary(file) {
  if (file.size > MAX_BYTES) throw new Error(`${bytes(file.size)} is more than a boundary needs; at most ${bytes(MAX_BYTES)}.`);
  const text = await file.text();
  const boundary = /\.kml$/i.test(file.name) ? fromKml(text) : fromGeoJson(text);
  const { features } = boundary;
  if (features.length === 0) throw new Error("no area in this file. Draw the outline of the field as a polygon.");
  const corners = features.flatMap(({ geometry }) => rings(geometry)).reduce((sum, ring) => sum + ring.length, 0);
  if (corners > MAX_CORNERS) throw new Error(`${count(corners, "corner")}; at most ${count(MAX_CORNERS, "corner")} can be used. Simplify the outline in QGIS.`);
  const names = features.map(({ properties }) => properties?.name).filter(Boolean);
  const what = features.length === 1 ? names[0] ?? "one field" : `${count(features.length, "field")}; the one on the mosaic counts`;
  return { boundary, told: `${file.name}: ${what}, ${count(corners, "corner")}.` };
}

function rings({ type, coordinates }) {
  return type === "Polygon" ? coordinates : coordinates.flat();
}

function fromGeoJson(text) {
  let found;
  try {
    found = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch {
    throw new Error("this is no GeoJSON or KML file. In QGIS choose Export, Save Features As, GeoJSON.");
  }
  const all = found?.type === "FeatureCollection" ? found.features : [found];
  const features = (Array.isArray(all) ? all : [])
    .map((one) => (one?.type === "Feature" ? one : { geometry: one, properties: {} }))
    .filter(({ geometry }) => ["Polygon", "MultiPolygon"].includes(geometry?.type) && Array.isArray(geometry.coordinates))
    .map(({ geometry: { type, coordinates }, properties }) => ({ type: "Feature", geometry: { type, coordinates }, properties: named(properties) }));
  const crs = found?.crs?.properties?.name;
  return { type: "FeatureCollection", features, ...(crs ? { crs: { type: "name", properties: { name: String(crs) } } } : {}) };
}

function named(properties) {
  const lower = Object.fromEntries(Object.entries(properties ?? {}).map(([key, value]) => [key.toLowerCase(), value]));
  const name = NAMES.map((key) => lower[key]).find((value) => value !== undefined && value !== null);
  return name === undefined ? {} : { name: String(name).slice(0, 200) };
}

function fromKml(text) {
  const page = new DOMParser().parseFromString(text, "application/xml");
  if (page.querySelector("parsererror") || page.documentElement.localName !== "kml") {
    throw new Error("this is no KML file. Export the field again as KML or GeoJSON.");
  }
  const features = [...page.getElementsByTagNameNS("*", "Placemark")].map((place) => {
    const coordinates = [...place.getElementsByTagNameNS("*", "Polygon")].map(ringsOf).filter((found) => found.length > 0);
    const name = [...place.children].find(({ localName }) => localName === "name")?.textContent.trim();
    return { type: "Feature", geometry: { type: "MultiPolygon", coordinates }, properties: named({ name: name || undefined }) };
  });
  return { type: "FeatureCollection", features: features.filter(({ geometry }) => geometry.coordinates.length > 0) };
}

/** Rings of a polygon of KML, the outline first. */
function ringsOf(polygon) {
  const [outer, inner] = ["outerBoundaryIs", "innerBoundaryIs"].map((kind) => [...polygon.getElementsByTagNameNS("*", kind)]);
  return [...outer, ...inner].map((border) => {
    const text = border.getElementsByTagNameNS("*", "coordinates")[0]?.textContent ?? "";
    return text.trim().split(/\s+/).map((corner) => corner.split(",").slice(0, 2).map(Number));
  });
}
