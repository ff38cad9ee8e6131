/**
 * A reader of .wio files, written from the specification (spec/wio-1.md), which passes its test vectors.
 *
 *     import { blobSource, openWio } from "./wio.js";
 *     const file = await openWio(blobSource(blob));
 *     file.tensors[0].layout.toString();
 *     await file.values(file.tensors[0]);
 *
 * Only the header is read to open a file; the rest when it is asked for.
 */
import { decode, DTYPES, NATIVE } from "./dtypes.js";
import { WioError } from "./errors.js";
import { elements, readHeader, sizesIn } from "./header.js";
import { parseJson, plain } from "./json.js";
import { Layout } from "./layout.js";
import { canHave, ROLES } from "./roles.js";
import { Sha256, sha256 } from "./sha256.js";

const VERSION = 1n;
const RESERVED = "__wio__/";
const RECEIPT = "__wio__/receipt";
const DECLARATION = "__wio__/declaration";
export const DIGEST = /^[0-9a-f]{64}$/;
const PIECE = 4 * 1024 * 1024;
const FILE_KEYS = ["wio", "generator", "table", "metadata", "receipt", "layouts", "tensors"];
const TENSOR_KEYS = ["name", "role", "layout", "origin", "layer", "dtype", "shape", "encoding", "sha256"];

/** What files are read from: a Blob or File of a browser, a piece at a time. */
export function blobSource(blob) {
  return {
    size: blob.size,
    read: async (begin, end) => new Uint8Array(await blob.slice(begin, end).arrayBuffer()),
  };
}

/** Opens a file. `source` has a `size` and `read(begin, end)`, which promises a Uint8Array. WioError refuses it. */
export async function openWio(source) {
  const header = await readHeader(source);
  const declaration = await readDeclaration(source, header);
  return new WioFile(source, header, declaration);
}

/** An open file: `tensors` in their declared order, `metadata`, `generator`, and the keys that version 1 does not know. */
class WioFile {
  constructor(source, header, declaration) {
    this.source = source;
    this.header = header;
    this.generator = optional(declaration, "generator", "string", "the declaration") ?? null;
    const metadata = declaration.has("metadata") ? declaration.get("metadata") : new Map();
    if (!(metadata instanceof Map)) refuse("its metadata are no object");
    if (metadata.has("unknown_keys")) refuse("unknown_keys may not stand in its metadata");
    this.metadata = plain(metadata);
    this.reference = declaration.get("receipt");
    this.hasReceipt = declaration.has("receipt");
    this.tensors = tensorsOf(declaration, header.entries);
    this.unknownKeys = { file: unknown(declaration, FILE_KEYS), tensors: Object.create(null) };
    for (const entry of declaration.get("tensors")) {
      const keys = unknown(entry, TENSOR_KEYS);
      if (Object.keys(keys).length) this.unknownKeys.tensors[entry.get("name")] = keys;
    }
  }

  /** The stored bytes of a tensor, or those from `begin` to `end`. */
  bytes(tensor, begin = 0, end = tensor.nbytes) {
    const start = this.header.data + tensor.begin;
    return this.source.read(start + begin, start + end);
  }

  /** The elements in C order, decoded; the whole tensor is read. */
  async values(tensor) {
    return decode(tensor.name, DTYPES.get(tensor.dtype), await this.bytes(tensor), tensor.count);
  }

  /** The receipt as plain objects, or null where none is declared. Its digest is checked. */
  async receipt() {
    if (!this.hasReceipt) return null;
    const bytes = await referred(this.source, this.header, this.reference, RECEIPT);
    const receipt = parseJson(bytes, "reserved", "the receipt");
    if (!(receipt instanceof Map)) throw new WioError("reserved", "the receipt is no object");
    return plain(receipt);
  }

  /** WioError unless a tensor's bytes have the declared digest. They are read a piece at a time. */
  async verify(tensor) {
    const digest = new Sha256();
    for (let at = 0; at < tensor.nbytes; at += PIECE)
      digest.update(await this.bytes(tensor, at, Math.min(at + PIECE, tensor.nbytes)));
    if (digest.hex() !== tensor.sha256)
      throw new WioError("digest", `${JSON.stringify(tensor.name)}: its bytes are not those that were declared`);
  }
}

/** Sections 2, 3 and 9: the declaration, in the header or outside, of a known version and of this very table. */
async function readDeclaration(source, header) {
  const text = header.metadata?.get("wio");
  if (text === undefined) refuse("it has no declaration: a safetensors file, no .wio file");
  const declaration = versioned(parseJson(new TextEncoder().encode(text), "declaration", "the declaration"));
  let whole = declaration;
  if (declaration.has("declaration")) {
    const bytes = await referred(source, header, declaration.get("declaration"), DECLARATION);
    whole = versioned(parseJson(bytes, "declaration", "the declaration"));
    if (whole.has("declaration")) refuse("the declaration outside the header points to another declaration");
  }
  if (whole.get("table") !== tableDigest(header.entries))
    throw new WioError("stale", "another tool has saved this file again: its tensors are not those that were declared");
  return whole;
}

function versioned(declaration) {
  if (!(declaration instanceof Map)) refuse("the declaration is no object");
  knownVersion(declaration.get("wio"), "the declaration");
  return declaration;
}

export function knownVersion(version, what) {
  if (version === VERSION) return;
  const found = typeof version === "bigint" ? `version ${version}` : "no version that is an integer";
  throw new WioError("version", `${what} has ${found}; this reader knows version ${VERSION}`);
}

/** The bytes of the reserved tensor that a reference names, their digest checked. */
async function referred(source, header, reference, expected) {
  const fail = (problem) => {
    throw new WioError("reserved", `${expected.slice(RESERVED.length)}: ${problem}`);
  };
  if (!(reference instanceof Map)) fail("the reference to it is no object");
  const digest = reference.get("sha256");
  if (typeof digest !== "string" || !DIGEST.test(digest)) fail("the reference to it has no digest");
  if (reference.get("tensor") !== expected) fail(`the reference to it does not name ${expected}`);
  const entry = header.entries.get(expected);
  if (!entry) fail(`the file has no tensor ${expected}`);
  if (entry.code !== "U8" || entry.shape.length !== 1) fail(`${expected} is not U8 with one axis`);
  const bytes = await source.read(header.data + Number(entry.begin), header.data + Number(entry.end));
  if (sha256(bytes) !== digest)
    throw new WioError("digest", `the ${expected.slice(RESERVED.length)} is damaged: its bytes have another digest`);
  return bytes;
}

/** Section 3. */
function tableDigest(entries) {
  const encoder = new TextEncoder();
  const lines = [...entries].map(([name, { code, shape, begin, end }]) => {
    const bytes = encoder.encode(name);
    return { bytes, line: `${bytes.length}:${name}|${code}|${shape.join(",")}|${begin}|${end}\n` };
  });
  lines.sort((one, other) => byteOrder(one.bytes, other.bytes));
  const digest = new Sha256();
  for (const { line } of lines) digest.update(encoder.encode(line));
  return digest.hex();
}

function byteOrder(one, other) {
  const shared = Math.min(one.length, other.length);
  for (let at = 0; at < shared; at++) if (one[at] !== other[at]) return one[at] - other[at];
  return one.length - other.length;
}

/** The declared tensors, held against the header's. */
function tensorsOf(declaration, entries) {
  const texts = declaration.get("layouts");
  if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string"))
    refuse("its layouts are no list of texts");
  const layouts = texts.map((text) => Layout.parse(text));
  const list = declaration.get("tensors");
  if (!Array.isArray(list) || !list.every((entry) => entry instanceof Map))
    refuse("its tensors are no list of objects");

  const tensors = new Map();
  for (const declared of list) {
    const name = declared.get("name");
    if (typeof name !== "string") refuse("a tensor has no name that is a text");
    const quoted = JSON.stringify(name);
    if (name.startsWith(RESERVED)) refuse(`${quoted} is a reserved tensor, declared as a weight`);
    if (tensors.has(name)) refuse(`${quoted} is declared twice`);
    const entry = entries.get(name);
    if (!entry) refuse(`${quoted} is declared, and the file does not have it`);
    tensors.set(name, tensorOf(name, quoted, declared, entry, layouts));
  }
  for (const name of entries.keys())
    if (!tensors.has(name) && !name.startsWith(RESERVED)) refuse(`${JSON.stringify(name)} is in the file, and not declared`);
  return [...tensors.values()];
}

function tensorOf(name, quoted, declared, entry, layouts) {
  const origin = optional(declared, "origin", "string", quoted) ?? null;
  const layer = optional(declared, "layer", "string", quoted) ?? layerIn(name);
  const sha = declared.get("sha256");
  if (typeof sha !== "string" || !DIGEST.test(sha)) refuse(`${quoted}: its sha256 is no digest`);
  const role = declared.has("role") ? declared.get("role") : null;
  if (role !== null || declared.has("role"))
    if (!ROLES.has(role)) refuse(`${quoted}: ${typeof role === "string" ? role : "its role"} is no role`);
  const { dtype, shape, count } = elementsOf(quoted, declared, entry);

  let layout = null;
  if (declared.has("layout")) {
    const index = declared.get("layout");
    if (typeof index !== "bigint" || index < 0n || index >= layouts.length)
      refuse(`${quoted}: its layout ${typeof index === "bigint" ? index : ""} is no index of the layouts`);
    layout = layouts[Number(index)];
    const refuted = layout.refutedBy(shape);
    if (refuted) throw new WioError("layout", `${quoted}: its shape refutes ${layout}: ${refuted}`);
    if (role !== null && !canHave(role, layout)) refuse(`${quoted}: the role ${role} cannot have the layout ${layout}`);
  }
  return {
    name,
    dtype: dtype.name,
    shape: shape.map(Number),
    role,
    layout,
    origin,
    layer,
    sha256: sha,
    encoding: dtype.encoding,
    count: Number(count),
    begin: Number(entry.begin),
    nbytes: Number(entry.end - entry.begin),
  };
}

/** The true dtype and shape, which an encoded tensor declares (section 6). */
function elementsOf(quoted, declared, entry) {
  if (!declared.has("dtype")) {
    if (declared.has("shape") || declared.has("encoding")) refuse(`${quoted}: shape and encoding want a dtype`);
    const dtype = NATIVE.get(entry.code);
    return { dtype, shape: entry.shape, count: elements(entry.shape, dtype.size) };
  }
  const fail = (problem) => {
    throw new WioError("encoding", `${quoted}: ${problem}`);
  };
  const dtype = DTYPES.get(declared.get("dtype"));
  if (!dtype?.encoding) fail("its dtype is none that is encoded");
  if (declared.get("encoding") !== dtype.encoding) fail(`${dtype.name} is encoded as ${dtype.encoding}`);
  if (entry.code !== "U8" || entry.shape.length !== 1) fail("it is encoded, and not stored as U8 with one axis");
  const shape = sizesIn(declared.get("shape"));
  if (!shape) fail("its shape is no list of at most 64 sizes");
  const count = elements(shape, dtype.size ?? 1);
  const stored = entry.end - entry.begin;
  if (count === null) fail("its shape comes to 2^63 bytes or more");
  if (dtype.size ? count * BigInt(dtype.size) !== stored : count > stored)
    fail(`its shape [${shape}] does not come to the ${stored} bytes that are stored`);
  return { dtype, shape, count };
}

/** The layer that a name says, where none is declared (section 2). */
function layerIn(name) {
  for (const mark of "/._") if (name.includes(mark)) return name.slice(0, name.lastIndexOf(mark));
  return name;
}

function optional(map, key, type, what) {
  if (!map.has(key)) return undefined;
  const value = map.get(key);
  if (typeof value !== type) refuse(`${what}: its ${key} is no text`);
  return value;
}

/** What a map has beside the keys that version 1 knows. */
export function unknown(map, known) {
  return plain(new Map([...map].filter(([key]) => !known.includes(key))));
}

function refuse(problem) {
  throw new WioError("declaration", problem);
}
