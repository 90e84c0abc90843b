// What people choose or drop: photos, zips, whole folders; what cannot be used, and why.
import { bytes } from "./format.js";

const { accept, formats, maps, maxUploadBytes } = document.body.dataset;
export const ACCEPT = accept;
export const FORMATS = formats;
/** Whether this service maps orthomosaics. */
export const MAPS = maps === "true";
const SUFFIXES = accept.split(",").filter((part) => part.startsWith("."));
export const MAX_BYTES = Number(maxUploadBytes);
export const MAX_FILES = 2000;

/** Say why a file cannot be used; empty if it can. */
export function refusal(file) {
  const suffix = /\.[^.]*$/.exec(file.name.toLowerCase())?.[0] ?? "";
  if (suffix === ".heic" && !SUFFIXES.includes(suffix)) {
    return `HEIC photos cannot be read here. Save it as JPEG; on an iPhone choose Settings, Camera, Formats, Most Compatible.`;
  }
  if (!SUFFIXES.includes(suffix)) return `not a photo that can be read here. Choose ${FORMATS}, or a zip of photos.`;
  if (file.size === 0) return "the file is empty. Copy it from the camera again.";
  if (file.size > MAX_BYTES) return `${bytes(file.size)} is more than the ${bytes(MAX_BYTES)} that one file may have.`;
  return "";
}

/** Whether something is a zip of photos. */
export function isZip(name) {
  return name.toLowerCase().endsWith(".zip");
}

/** Whether a file may be an orthomosaic. */
export function mayBeMosaic(name) {
  return MAPS && /\.tiff?$/i.test(name);
}

/** Collect dropped files, those in folders too. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  const found = await Promise.all(entries.map(filesOf));
  return found.flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    found.push(...some);
  }
  const seen = found.filter((child) => !child.name.startsWith("."));
  return (await Promise.all(seen.map(filesOf))).flat();
}
