import { DTYPES } from "./dtypes.js";
import { places } from "./layout.js";

const LAST = "FBGOUCMYX";

/**
 * How a tensor of a declared layout is drawn: tiles of `height` x `width` in `rows` x `columns`, each a list of
 * [letters, size]. Space is inside the tile, the way that cross-correlation runs; what comes in runs from left to right,
 * what goes out from top to bottom. `element(row, column, h, w)` is the number of the element there, in C order.
 */
export function pictureOf(layout, shape) {
  const { sizes, offset } = places(layout, shape);
  const has = (letter) => sizes.get(letter) ?? 1;
  const rest = [...sizes].filter(([letters]) => letters !== "H" && letters !== "W");
  const columns = rest.filter(([letters]) => /[ID?]/.test(letters));
  if (columns.length === 0 && rest.length > 1) {
    rest.sort(([one], [other]) => LAST.indexOf(one[0]) - LAST.indexOf(other[0]));
    columns.push(rest.at(-1));
  }
  const rows = rest.filter((part) => !columns.includes(part));
  const spatial = sizes.has("H") || sizes.has("W");
  // A vector has nothing that comes in: it lies from left to right.
  const [down, across] = !spatial && columns.length === 0 ? [[], rows] : [rows, columns];

  function element(row, column, h, w) {
    const index = new Map([["H", h], ["W", w]]);
    unfold(down, row, index);
    unfold(across, column, index);
    return offset(index);
  }

  return { rows: down, columns: across, height: has("H"), width: has("W"), spatial, element };
}

export const count = (parts) => parts.reduce((all, [, size]) => all * size, 1);

/** The index along each letter that a row or column stands for, the last letter running fastest. */
export function unfold(parts, number, index = new Map()) {
  for (const [letters, size] of [...parts].reverse()) {
    index.set(letters, number % size);
    number = Math.floor(number / size);
  }
  return index;
}

/** The elements as numbers that can be drawn, or null where they are none: strings and complex numbers. */
export function drawable(tensor, bytes) {
  const dtype = DTYPES.get(tensor.dtype);
  if (!dtype.read || tensor.dtype.startsWith("complex")) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = new Float64Array(tensor.count);
  for (let index = 0; index < numbers.length; index++) numbers[index] = Number(dtype.read(view, index * dtype.size));
  return numbers;
}

/** What the numbers come to: extremes, mean and deviation of the finite ones, and how many are not. */
export function statistics(numbers) {
  let [finite, sum, min, max, zeros] = [0, 0, Infinity, -Infinity, 0];
  for (const value of numbers)
    if (Number.isFinite(value)) {
      finite++;
      sum += value;
      if (value < min) min = value;
      if (value > max) max = value;
      if (value === 0) zeros++;
    }
  const mean = sum / finite;
  let squares = 0;
  for (const value of numbers) if (Number.isFinite(value)) squares += (value - mean) ** 2;
  return { finite, min, max, mean, deviation: Math.sqrt(squares / finite), zeros, notFinite: numbers.length - finite };
}

/** How many finite numbers fall into each of `bins` equal steps from min to max. */
export function histogram(numbers, { min, max }, bins) {
  const counts = new Array(bins).fill(0);
  const scale = max > min ? bins / (max - min) : 0;
  for (const value of numbers)
    if (Number.isFinite(value)) counts[Math.min(bins - 1, Math.floor((value - min) * scale))]++;
  return counts;
}

/** Blue below zero, red above, white at zero; what is not finite is yellow. As [red, green, blue]. */
export function colour(value, largest) {
  if (!Number.isFinite(value)) return [255, 200, 0];
  const part = largest ? Math.min(1, Math.abs(value) / largest) : 0;
  const end = value < 0 ? [33, 102, 172] : [178, 24, 43];
  return end.map((channel) => Math.round(247 + (channel - 247) * part));
}
