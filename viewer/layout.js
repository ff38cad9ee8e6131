import { WioError } from "./errors.js";

/** Section 12.1. */
export const LETTERS = new Map([
  ["O", "output channels"],
  ["I", "input channels"],
  ["D", "depth"],
  ["H", "height"],
  ["W", "width"],
  ["C", "channels of a map"],
  ["M", "depth multiplier, or pieces of a maxout"],
  ["U", "units"],
  ["G", "groups, or gates"],
  ["Y", "output rows"],
  ["X", "output columns"],
  ["B", "biases: input, recurrent"],
  ["F", "directions: forward, backward"],
]);
const SPATIAL = "DHW";
const LETTER = "[OIDHWCMUGYXBF]";
const AXES = new RegExp(`^(?:\\(\\)|(?:${LETTER}|1|\\(${LETTER}+\\)|\\(\\?\\))+)$`);
const SIZE = new RegExp(`^(${LETTER})=([0-9]{1,18})$`);
const GATES = /^G=([ifcgjozrhn]+)$/;
const VALUES = new RegExp(`^values=((?:${LETTER}|1)+)$`);
const SAME_GATE = { g: "c", j: "c", n: "h" };
const GATES_OF = ["ifco", "zrh"];

/**
 * Where each axis of an array sits (section 12). `axes` holds a text for each axis: one letter, "1", "?" or the letters
 * that share it. `sizes` maps letters to BigInt, the number of gates included; `values` is null in the order of the axes.
 */
export class Layout {
  constructor(axes, flipped, values, sizes, gates) {
    Object.assign(this, { axes, flipped, values, sizes, gates });
  }

  /** WioError unless the text is of the grammar and keeps the rules of section 12.3. */
  static parse(text) {
    const refuse = (problem) => {
      throw new WioError("layout", `${JSON.stringify(text)} is no layout: ${problem}`);
    };
    const [written, ...words] = text.split(" ").filter(Boolean);
    if (!written || !AXES.test(written)) refuse("its axes are malformed");
    const axes = (written.match(/\([^)]+\)|[^()]/g) ?? []).map((axis) => axis.replace(/[()]/g, ""));
    const letters = axes.join("").replaceAll("1", "");
    if (repeats(letters)) refuse("a letter stands twice");

    let flipped = false;
    let values = null;
    let gates = null;
    const sizes = new Map();
    for (const word of words) {
      const size = SIZE.exec(word);
      const order = GATES.exec(word);
      const elements = VALUES.exec(word);
      if (word === "flipped" && !flipped) flipped = true;
      else if (size && !sizes.has(size[1])) sizes.set(size[1], BigInt(size[2]));
      else if (order && gates === null) gates = [...order[1]].map((gate) => SAME_GATE[gate] ?? gate).join("");
      else if (elements && values === null) values = elements[1];
      else refuse(`${word} is no word of the grammar, or stands twice`);
    }
    for (const letter of sizes.keys()) if (!letters.includes(letter)) refuse(`${letter} has a size and is no axis`);
    if (gates !== null) {
      if (!letters.includes("G") || sizes.has("G")) refuse(`G=${gates} wants an axis G without another size`);
      if (repeats(gates)) refuse(`a gate of ${gates} stands twice`);
      if (!GATES_OF.some((kind) => [...gates].every((gate) => kind.includes(gate))))
        refuse(`${words.find((word) => word.startsWith("G="))} are gates of two kinds of layer`);
      sizes.set("G", BigInt(gates.length));
    }
    const spatial = axes.filter((axis) => [...axis].some((letter) => SPATIAL.includes(letter)));
    if (flipped && (spatial.length === 0 || spatial.some((axis) => axis.length > 1)))
      refuse("flipped needs spatial axes, each of its own");
    if (values !== null) {
      const whole = sameLetters(values, axes.join(""));
      const without = axes.join("").replace("G", "");
      const perGate = !whole && gates !== null && sameLetters(values, without);
      const alone = axes.every((axis) => (axis.length === 1 && axis !== "?") || (perGate && axis.includes("G")));
      if (!(whole || perGate) || !alone) refuse("its values= are not its axes, each of its own");
      if (values === (perGate ? without : axes.join(""))) values = null;
    }
    return new Layout(axes, flipped, values, sizes, gates);
  }

  /** The canonical text, equal for equal layouts. */
  toString() {
    const grouped = (axis) => (axis.length > 1 || axis === "?" ? `(${axis})` : axis);
    const order = [...this.axes.join("")];
    const sized = order.filter((letter) => this.sizes.has(letter) && !(letter === "G" && this.gates));
    return [
      this.axes.map(grouped).join("") || "()",
      ...(this.flipped ? ["flipped"] : []),
      ...(this.values ? [`values=${this.values}`] : []),
      ...sized.map((letter) => `${letter}=${this.sizes.get(letter)}`),
      ...(this.gates ? [`G=${this.gates}`] : []),
    ].join(" ");
  }

  /** Why a shape (of BigInt) refutes this layout, or null (section 12.5). */
  refutedBy(shape) {
    if (shape.length !== this.axes.length) return `it has ${this.axes.length} axes, the tensor ${shape.length}`;
    for (const [index, axis] of this.axes.entries()) {
      const length = shape[index];
      if (axis === "1" && length !== 1n) return `a unit axis is ${length} long`;
      const known = [...axis].filter((letter) => this.sizes.has(letter));
      const product = known.reduce((size, letter) => size * this.sizes.get(letter), 1n);
      const whole = known.length === axis.length;
      const says = known.map((letter) => `${letter}=${this.sizes.get(letter)}`).join(" ");
      if (whole && product !== length) return `${says} where the axis is ${length} long`;
      if (!whole && (product === 0n ? length !== 0n : length % product !== 0n))
        return `${says} does not divide an axis that is ${length} long`;
    }
    return null;
  }
}

/**
 * Where the elements of an array of this layout and shape (of Numbers) lie. `sizes` maps each letter to its length, with
 * a group whose letters' sizes are not known under its whole text; `offset` is given an index for each of them, each
 * relative to cross-correlation and with the gates in the order of `gatesOf`, and returns the element's number in C order.
 */
export function places(layout, shape, whole = []) {
  const parts = layout.axes.map((axis, at) => partsOf(layout, axis, shape[at], whole));
  const sizes = new Map(parts.flat());
  const gates = layout.gates && gatesOf(layout).map((gate) => layout.gates.indexOf(gate));
  const inOrder = layout.values && [...layout.values].filter((letter) => letter !== "1");
  const byValues = inOrder && parts.flat().filter(([letter]) => inOrder.includes(letter));

  function offset(index) {
    let at = new Map();
    for (const [letter, size] of sizes) {
      const given = index.get(letter);
      const flipped = layout.flipped && SPATIAL.includes(letter);
      at.set(letter, letter === "G" && gates ? gates[given] : flipped ? size - 1 - given : given);
    }
    if (inOrder) at = reread(at);
    let place = 0;
    for (const axis of parts) for (const [letter, size] of axis) place = place * size + at.get(letter);
    return place;
  }

  /** Under `values=`: which index along each axis the element has whose number among the values is that of `at`. */
  function reread(at) {
    let number = 0;
    for (const letter of inOrder) number = number * sizes.get(letter) + at.get(letter);
    const moved = new Map(at);
    for (const [letter, size] of [...byValues].reverse()) {
      moved.set(letter, number % size);
      number = Math.floor(number / size);
    }
    return moved;
  }

  return { sizes, offset };
}

/** The gates that a layout has, in the order of the neutral layouts. */
export function gatesOf(layout) {
  return [...GATES_OF.join("")].filter((gate) => layout.gates.includes(gate));
}

/** The letters of one axis with their sizes; a group of unknown sizes is one part, as is one that moves whole. */
function partsOf(layout, axis, length, whole) {
  if (axis === "1") return [];
  const letters = [...axis];
  const unknown = letters.filter((letter) => !layout.sizes.has(letter));
  const product = letters.reduce((size, letter) => size * Number(layout.sizes.get(letter) ?? 1n), 1);
  if (whole.includes(axis) || unknown.length > 1 || (unknown.length === 1 && product === 0)) return [[axis, length]];
  return letters.map((letter) => [letter, layout.sizes.has(letter) ? Number(layout.sizes.get(letter)) : length / product]);
}

/**
 * How an array of one layout becomes one of another (section 12.6): the shape it then has, and for each of its elements,
 * in C order, the number of the element it was. `layout` WioError where there is no way.
 */
export function rearrange(source, target, shape) {
  const refuse = (problem) => {
    throw new WioError("layout", `${source} cannot become ${target}: ${problem}`);
  };
  const axes = (layout) => layout.axes.join("").replaceAll("1", "");
  const sorted = (text) => text && [...text].sort().join("");
  if (!sameLetters(axes(source), axes(target))) refuse("they do not hold the same axes");
  if (sorted(source.gates) !== sorted(target.gates)) refuse("they do not hold the same gates");
  for (const [letter, size] of target.sizes)
    if ((source.sizes.get(letter) ?? size) !== size) refuse(`they disagree about the size of ${letter}`);
  const sizes = new Map([...source.sizes, ...target.sizes]);
  const from = new Layout(source.axes, source.flipped, source.values, sizes, source.gates);
  const into = new Layout(target.axes, target.flipped, target.values, sizes, target.gates);
  const refuted = from.refutedBy(shape.map(BigInt));
  if (refuted) refuse(refuted);

  const whole = source.axes.filter((axis) => axis.length > 1 && target.axes.includes(axis) && !axis.includes("G"));
  const old = places(from, shape, whole);
  for (const part of old.sizes.keys())
    if (part.length > 1 && !target.axes.includes(part)) refuse(`the sizes in (${part}) are not declared`);
  const known = new Map([...sizes, ...[...old.sizes].map(([part, size]) => [part, BigInt(size)])]);
  const size = (axis) => old.sizes.get(axis) ?? [...axis].reduce((all, letter) => all * old.sizes.get(letter), 1);
  const result = target.axes.map((axis) => (axis === "1" ? 1 : size(axis)));
  const fresh = places(new Layout(into.axes, into.flipped, into.values, known, into.gates), result, whole);

  const order = new Array(result.reduce((all, length) => all * length, 1));
  for (const index of indices([...old.sizes])) order[fresh.offset(index)] = old.offset(index);
  return { shape: result, order };
}

/** Every index along letters of given sizes. */
function* indices(sizes) {
  const count = sizes.reduce((all, [, size]) => all * size, 1);
  for (let number = 0; number < count; number++) {
    const index = new Map();
    let rest = number;
    for (const [letter, size] of sizes) {
      index.set(letter, rest % size);
      rest = Math.floor(rest / size);
    }
    yield index;
  }
}

function repeats(letters) {
  return new Set(letters).size < letters.length;
}

function sameLetters(one, other) {
  return [...one].sort().join("") === [...other].sort().join("");
}
