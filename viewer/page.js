import { Drawing } from "./drawing.js";
import { DTYPES } from "./dtypes.js";
import { WioError } from "./errors.js";
import { LETTERS } from "./layout.js";
import { drawable, histogram, statistics } from "./picture.js";
import { openSet } from "./set.js";
import { blobSource, openWio } from "./wio.js";

const INDEX = ".wio.index.json";
const LISTED = 5000;
const DRAWN = 64 * 1024 * 1024;
const FIRST = 32;
const COLUMNS = ["name", "dtype", "shape", "role", "layout"];
const at = (id) => document.getElementById(id);

/** Everything that is shown of one open file; a new one takes its place. */
let opened = null;

at("file").addEventListener("change", () => {
  const chosen = [...at("file").files];
  // The same file may be chosen again: it may have changed.
  at("file").value = "";
  if (chosen.length) show(chosen);
});
at("search").addEventListener("input", () => opened?.list());
at("check").addEventListener("click", () => opened?.check());
for (const id of ["row", "column"]) at(id).addEventListener("input", () => opened?.drawing?.draw());
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files.length) show([...event.dataTransfer.files]);
});
at("tensors").addEventListener("keydown", (event) => opened?.key(event));
for (const column of COLUMNS) {
  const heading = document.createElement("th");
  heading.append(button(column, () => opened?.sort(column)));
  at("headings").append(heading);
}

/** One .wio file, or the index of a set with its shards. */
async function show(blobs) {
  const index = blobs.find((blob) => blob.name.endsWith(INDEX));
  const blob = index ?? blobs[0];
  opened = null;
  at("opened").hidden = true;
  at("problem").textContent = "";
  try {
    const beside = async (name) => {
      const found = blobs.find((one) => one.name === name);
      return found ? blobSource(found) : null;
    };
    const file = await (index ? openSet(blobSource(index), beside) : openWio(blobSource(blob)));
    const size = (index ? blobs : [blob]).reduce((sum, one) => sum + one.size, 0);
    const view = new View(blob, file, size);
    opened = view;
    view.summary();
    view.sort(null);
    await Promise.all([view.choose(view.shown[0]), view.receipt()]);
    if (opened === view) at("opened").hidden = false;
  } catch (error) {
    problem(blob.name, error);
  }
}

/** An error of the file in words; any other is a fault of this page, and is one in the console too. */
function problem(name, error) {
  const unread = error instanceof DOMException;
  at("problem").textContent = `${visible(name)}: ${visible(error.message)}`;
  if (!(error instanceof WioError) && !unread) throw error;
}

class View {
  constructor(blob, file, size) {
    this.blob = blob;
    this.size = size;
    this.file = file;
    this.shown = [];
    this.chosen = null;
    this.sorted = null;
    this.drawing = null;
    at("search").value = "";
    at("verdict").textContent = "";
  }

  summary() {
    const { tensors, metadata, generator } = this.file;
    const declared = tensors.filter((tensor) => tensor.role && tensor.layout).length;
    at("file-name").textContent = visible(this.blob.name);
    facts(at("summary"), {
      size: bytesText(this.size),
      tensors: `${tensors.length}, ${declared} of them with role and layout`,
      "written by": generator,
      source: metadata.adapter,
      architecture: metadata.architecture,
      dialect: metadata.dialect,
    });
    at("metadata").textContent = visible(json(metadata), "\n");
  }

  /** By a column, or in the declared order; the same column again turns the order round. */
  sort(column) {
    const backwards = column !== null && this.sorted?.column === column && !this.sorted.backwards;
    this.sorted = { column, backwards };
    const text = (tensor) => cell(tensor, column);
    const size = (tensor) => tensor.count;
    const by = column === "shape" ? (a, b) => size(a) - size(b) : (a, b) => (text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : 0);
    this.order = column === null ? this.file.tensors : [...this.file.tensors].sort(by);
    if (backwards) this.order.reverse();
    for (const [index, heading] of [...at("headings").children].entries())
      heading.ariaSort = COLUMNS[index] === column ? (backwards ? "descending" : "ascending") : "none";
    this.list();
  }

  list() {
    const wanted = at("search").value.toLowerCase();
    const hit = (tensor) => COLUMNS.some((column) => cell(tensor, column).toLowerCase().includes(wanted));
    const hits = wanted ? this.order.filter(hit) : this.order;
    this.shown = hits.slice(0, LISTED);
    at("found").textContent =
      `${hits.length} of ${this.file.tensors.length}` + (hits.length > LISTED ? `, the first ${LISTED} listed` : "");
    at("tensors").replaceChildren(...this.shown.map((tensor) => this.line(tensor)));
    this.mark();
  }

  line(tensor) {
    const row = document.createElement("tr");
    for (const column of COLUMNS) {
      const data = row.insertCell();
      if (column !== "name") data.textContent = visible(cell(tensor, column));
      else data.append(button(titled(tensor.name), () => this.choose(tensor)));
    }
    return row;
  }

  /** One row of the list takes the focus: the chosen one, or the first. */
  mark() {
    const chosen = Math.max(0, this.shown.indexOf(this.chosen));
    for (const [index, row] of [...at("tensors").rows].entries()) {
      row.ariaSelected = String(this.shown[index] === this.chosen);
      row.querySelector("button").tabIndex = index === chosen ? 0 : -1;
    }
  }

  key(event) {
    const here = this.shown.indexOf(this.chosen);
    const last = this.shown.length - 1;
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = Math.min(last, Math.max(0, to));
    at("tensors").rows[next].querySelector("button").focus();
    this.choose(this.shown[next]);
  }

  async choose(tensor) {
    this.chosen = tensor ?? null;
    this.drawing = null;
    this.mark();
    at("detail").hidden = !tensor;
    for (const id of ["drawing", "values", "first"]) at(id).hidden = true;
    if (!tensor) return;
    at("tensor-name").textContent = titled(tensor.name);
    facts(at("facts"), {
      role: tensor.role ?? "not declared",
      layout: tensor.layout ? String(tensor.layout) : "not declared",
      axes: tensor.layout && axesText(tensor),
      dtype: tensor.dtype + (tensor.encoding ? `, kept as ${tensor.encoding}` : ""),
      shape: shapeText(tensor.shape),
      size: bytesText(tensor.nbytes),
      layer: tensor.layer,
      shard: tensor.shard,
      "in the source": tensor.origin,
      "SHA-256": tensor.sha256,
    });
    try {
      await this.values(tensor);
    } catch (error) {
      at("note").textContent = "";
      problem(this.blob.name, error);
    }
  }

  /** The drawing and the numbers; nothing of them if another tensor was chosen while this one was read. */
  async values(tensor) {
    const large = tensor.nbytes > DRAWN;
    at("note").textContent = large ? `Over ${bytesText(DRAWN)}: not read whole, and so not drawn.` : "reading ...";
    const bytes = await this.file.bytes(tensor, 0, large ? 16 * FIRST : tensor.nbytes);
    if (this.chosen !== tensor || opened !== this) return;
    const numbers = large ? null : drawable(tensor, bytes);
    await this.first(tensor, bytes, large);
    if (large) return;
    at("note").textContent = numbers === null ? "No numbers that could be drawn." : "";
    if (numbers === null || numbers.length === 0) return;
    const found = statistics(numbers);
    facts(at("statistics"), {
      "smallest, largest": `${number(found.min)}, ${number(found.max)}`,
      "mean, deviation": `${number(found.mean)}, ${number(found.deviation)}`,
      zeros: String(found.zeros),
      "not finite": found.notFinite ? String(found.notFinite) : null,
    });
    bars(histogram(numbers, found, 60), found);
    at("values").hidden = false;
    if (!tensor.layout) {
      at("note").textContent = "Its layout is not declared, and no shape can say it: not drawn.";
      return;
    }
    this.drawing = new Drawing(tensor, numbers, Math.max(Math.abs(found.min), Math.abs(found.max)));
    at("drawing").hidden = false;
    this.drawing.reset();
  }

  async first(tensor, bytes, large) {
    const dtype = DTYPES.get(tensor.dtype);
    let elements;
    if (large && !dtype.read) return;
    if (dtype.read) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      elements = Array.from({ length: Math.min(FIRST, tensor.count) }, (_, index) => dtype.read(view, index * dtype.size));
    } else elements = (await this.file.values(tensor)).slice(0, FIRST).map((item) => new TextDecoder().decode(item));
    const text = (item) => (typeof item === "string" ? JSON.stringify(item) : Array.isArray(item) ? `(${item.join(", ")})` : String(item));
    at("elements").textContent = visible(elements.map(text).join(dtype.read ? "  " : "\n"), "\n") + (tensor.count > elements.length ? "  ..." : "");
    at("first").hidden = elements.length === 0;
  }

  async check() {
    const { tensors } = this.file;
    const verdict = (text, kind) => {
      at("verdict").textContent = visible(text);
      at("verdict").className = kind;
    };
    const wrong = [];
    at("check").disabled = true;
    at("progress").hidden = false;
    verdict("", "");
    try {
      for (const [index, tensor] of tensors.entries()) {
        at("progress").value = index / tensors.length;
        await this.file.verify(tensor).catch((error) => wrong.push(known(error).message));
        if (opened !== this) return;
      }
      await this.file.receipt().catch((error) => wrong.push(known(error).message));
      if (wrong.length) verdict(`${wrong.length} wrong: ${wrong.slice(0, 5).join("; ")}`, "bad");
      else verdict(`all ${tensors.length} digests match`, "good");
    } finally {
      at("check").disabled = false;
      at("progress").hidden = true;
    }
  }

  async receipt() {
    const body = at("steps").tBodies[0];
    body.replaceChildren();
    at("steps").hidden = at("receipt-whole").hidden = true;
    const note = (text) => (at("receipt-note").textContent = visible(text));
    let receipt;
    try {
      receipt = await this.file.receipt();
    } catch (error) {
      return note(known(error).message);
    }
    if (receipt === null) return note("The file has none.");
    const source = receipt.source?.file;
    note(typeof source === "string" ? `Made from ${source}.` : "");
    const list = (value) => (Array.isArray(value) ? value : []);
    const steps = [...list(receipt.values), ...list(receipt.steps)];
    for (const step of steps.slice(0, LISTED)) {
      const row = body.insertRow();
      const names = (value) => (Array.isArray(value) ? value.join(", ") : String(value ?? ""));
      for (const text of [names(step?.from), names(step?.to), String(step?.kind ?? "as it is"), exactly(step?.exact), String(step?.reason ?? "")])
        row.insertCell().textContent = visible(text);
    }
    at("steps").hidden = steps.length === 0;
    at("receipt").textContent = visible(json(receipt), "\n");
    at("receipt-whole").hidden = false;
  }
}

/** Errors of the file are shown; what is none of them is thrown on. */
function known(error) {
  if (error instanceof WioError || error instanceof DOMException) return error;
  throw error;
}

function exactly(exact) {
  return exact === false ? "no" : "yes";
}

function cell(tensor, column) {
  if (column === "shape") return shapeText(tensor.shape);
  return column === "layout" ? String(tensor.layout ?? "") : (tensor[column] ?? "");
}

/** What each letter of the layout counts. */
function axesText(tensor) {
  const meaning = (letter) => {
    if (letter === "1") return "1: a unit axis";
    if (letter === "?") return "(?): several axes, which is not declared";
    if (letter === "G" && tensor.layout.gates) return `G: gates ${[...tensor.layout.gates].join(" ")}`;
    return `${letter}: ${LETTERS.get(letter)}${tensor.layout.flipped && "DHW".includes(letter) ? ", stored backwards" : ""}`;
  };
  return [...tensor.layout.axes.join("")].map(meaning).join("; ") || "none";
}

function bars(counts, { min, max }) {
  const canvas = at("histogram");
  const context = canvas.getContext("2d");
  const top = Math.max(...counts);
  const step = canvas.width / counts.length;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = getComputedStyle(document.body).color;
  for (const [index, height] of counts.entries()) {
    const tall = height ? Math.max(1, (height / top) * canvas.height) : 0;
    context.fillRect(index * step, canvas.height - tall, step - 1, tall);
  }
  canvas.ariaLabel = `Histogram from ${number(min)} to ${number(max)}; the tallest bar holds ${top}`;
}

/** Names come from strangers: what is invisible, or turns the direction of text, is written out. */
function visible(text, kept = "") {
  const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
  return String(text).replace(hidden, (c) => (kept.includes(c) ? c : `\\u{${c.codePointAt(0).toString(16)}}`));
}

/** A name as a heading: one without anything to see is quoted. */
function titled(name) {
  return name.trim() ? visible(name) : JSON.stringify(name);
}

function json(value) {
  return JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? String(inner) : inner), 2);
}

function facts(list, pairs) {
  list.replaceChildren();
  for (const [term, text] of Object.entries(pairs)) {
    if (text === null || text === undefined) continue;
    list.append(Object.assign(document.createElement("dt"), { textContent: term }));
    list.append(Object.assign(document.createElement("dd"), { textContent: visible(text) }));
  }
}

function button(text, action) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", action);
  return made;
}

function shapeText(shape) {
  return shape.length ? shape.join(" x ") : "scalar";
}

function bytesText(size) {
  if (size < 1000) return `${size} bytes`;
  const step = Math.min(4, Math.floor(Math.log10(size) / 3));
  return `${(size / 1000 ** step).toPrecision(3)} ${["", "kB", "MB", "GB", "TB"][step]}`;
}

function number(value) {
  return String(Number(value.toPrecision(6)));
}
