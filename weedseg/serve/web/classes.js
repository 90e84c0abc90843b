// Classes of a model: their colours here, their shares, their pixels.

const WEED_COLOURS = ["#d55e00", "#cc79a7", "#e69f00", "#f0e442"];
const CROP_COLOURS = ["#009e73", "#56b4e9", "#0072b2"];
// Okabe and Ito's colours, which people with colour-blindness can tell apart.

/** Give each class a colour; where the palette ends, the model's own colours go on. */
export function withColours(classes) {
  const palette = { weed: [...WEED_COLOURS], crop: [...CROP_COLOURS] };
  return classes.map((row) => ({ ...row, colour: palette[row.role]?.shift() ?? row.colour }));
}

/** Share of the photo that all classes of a role cover, 0-1. */
export function roleShare(summary, role) {
  return sum(summary, role, "coverage");
}

/** Area of all classes of a role in m²; null where the ground resolution is unknown. */
export function roleArea(summary, role) {
  const known = summary.classes.some((row) => typeof row.area_m2 === "number");
  return known ? sum(summary, role, "area_m2") : null;
}

function sum(summary, role, field) {
  return summary.classes
    .filter((row) => row.role === role)
    .reduce((total, row) => total + (row[field] ?? 0), 0);
}

/** Decode COCO's compressed run lengths: pixels outside, inside, outside ... column by column. */
export function decodeRuns(text) {
  const runs = [];
  let place = 0;
  while (place < text.length) {
    let value = 0;
    let bits = 0;
    let code;
    do {
      code = text.charCodeAt(place) - 48;
      value |= (code & 31) << bits;
      bits += 5;
      place += 1;
    } while (code & 32);
    if (code & 16) value |= -1 << bits;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/**
 * Draw classes into a class map of another size; each pixel takes the class at its centre.
 * @param {Array} classes with `id` and `rle`
 * @returns {Uint8Array} class ids row by row
 */
export function classMap(classes, width, height) {
  const map = new Uint8Array(width * height);
  for (const row of classes) {
    if (row.id !== 0) drawRuns(decodeRuns(row.rle.counts), row.rle.size, row.id, map, width, height);
  }
  return map;
}

function drawRuns(runs, [fullHeight, fullWidth], id, map, width, height) {
  const columns = new Int32Array(fullWidth).fill(-1);
  for (let x = 0; x < width; x += 1) columns[Math.floor(((x + 0.5) * fullWidth) / width)] = x;
  const row = (y) => Math.ceil((y * height) / fullHeight - 0.5);
  let place = 0;
  runs.forEach((length, number) => {
    const end = place + length;
    while (number % 2 === 1 && place < end) {
      const column = Math.floor(place / fullHeight);
      const top = place - column * fullHeight;
      const bottom = Math.min(fullHeight, top + end - place);
      const x = columns[column];
      if (x >= 0) for (let y = row(top); y < row(bottom); y += 1) map[y * width + x] = id;
      place += bottom - top;
    }
    place = end;
  });
}

/** Mark the pixels at the rim of their patch, so that small plants can be seen. */
export function rims(map, width, height) {
  const thick = Math.max(1, Math.round(width / 700));
  const rim = new Uint8Array(map.length);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const here = y * width + x;
      const id = map[here];
      if (id === 0) continue;
      const left = x >= thick && map[here - thick] !== id;
      const right = x + thick < width && map[here + thick] !== id;
      const above = y >= thick && map[here - thick * width] !== id;
      const below = y + thick < height && map[here + thick * width] !== id;
      if (left || right || above || below) rim[here] = 1;
    }
  }
  return rim;
}

/**
 * Colour a class map.
 * @param {Map<number, string>} colours of the classes that are shown, "#rrggbb" by id
 * @param {number} opacity 0-1, of all but the rims
 */
export function colourMap(map, rim, width, height, colours, opacity) {
  const picture = new ImageData(width, height);
  const words = new Uint32Array(picture.data.buffer);
  const inner = new Uint32Array(256);
  const outer = new Uint32Array(256);
  for (const [id, colour] of colours) {
    inner[id] = word(colour, opacity);
    outer[id] = word(colour, opacity === 0 ? 0 : 1);
  }
  for (let i = 0; i < map.length; i += 1) words[i] = rim[i] ? outer[map[i]] : inner[map[i]];
  return picture;
}

function word(colour, opacity) {
  const number = Number.parseInt(colour.slice(1), 16);
  const bytes = [number >> 16, (number >> 8) & 255, number & 255, Math.round(255 * opacity)];
  return new Uint32Array(new Uint8Array(bytes).buffer)[0];
}
