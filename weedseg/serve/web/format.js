// Figures as people write them, with their units.

const NBSP = "\u00a0";
const WHEN = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });

/** A share 0-1 as per cent, with more digits where it is small. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0 || value >= 99.95) return `${value.toFixed(0)}${NBSP}%`;
  if (value < 0.01) return `<${NBSP}0.01${NBSP}%`;
  return `${value.toFixed(value < 1 ? 2 : 1)}${NBSP}%`;
}

/** A confidence 0-1 as whole per cent. */
export function whole(share) {
  return `${Math.round(100 * share)}${NBSP}%`;
}

/** An area in m², small ones in cm². */
export function area(m2) {
  if (m2 === 0) return `0${NBSP}m²`;
  if (m2 < 0.1) return `${(m2 * 1e4).toFixed(m2 < 1e-3 ? 1 : 0)}${NBSP}cm²`;
  return `${m2.toFixed(m2 < 10 ? 2 : 1)}${NBSP}m²`;
}

/** An area on the ground: large ones in ha. */
export function ground(m2) {
  return m2 < 1000 ? area(m2) : `${places(m2 / 1e4)}${NBSP}ha`;
}

/** A number with three digits that count. */
export function places(num) {
  return num.toLocaleString("en-GB", { maximumSignificantDigits: 3 });
}

export function pixels(num) {
  return `${num.toLocaleString("en-GB")}${NBSP}px`;
}

export function bytes(num) {
  if (num < 1e5) return `${Math.ceil(num / 1e3)}${NBSP}kB`;
  if (num < 1e9) return `${(num / 1e6).toFixed(1)}${NBSP}MB`;
  return `${(num / 1e9).toFixed(1)}${NBSP}GB`;
}

export function count(num, one, many = `${one}s`) {
  return `${num.toLocaleString("en-GB")}${NBSP}${num === 1 ? one : many}`;
}

export function when(moment) {
  return WHEN.format(new Date(moment));
}

export function day(moment) {
  return DAY.format(new Date(moment));
}

/** What the service says, as a sentence: a capital unless it begins with a file name, a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  const plain = /^[a-z]+[ ,;]/.test(trimmed);
  const begun = plain ? trimmed[0].toUpperCase() + trimmed.slice(1) : trimmed;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** What an upload is called in lists. */
export function title(names) {
  if (names.length === 1) return names[0];
  return `${names[0]} and ${names.length - 1} more`;
}
