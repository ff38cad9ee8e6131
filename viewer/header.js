import { NATIVE } from "./dtypes.js";
import { WioError } from "./errors.js";
import { parseJson } from "./json.js";

const LIMIT = 100_000_000n;
const END = 1n << 63n;
const RANK = 64;

/**
 * The header of a safetensors file, checked as section 1 demands: `entries` by name with `code`, `shape` (BigInt), and
 * `begin` and `end` counted from `data`, the place of the first byte of the data in the file; `metadata` is a Map, where there is one.
 */
export async function readHeader(source) {
  if (source.size < 8) refuse("the file is shorter than the length of its header");
  const length = new DataView((await source.read(0, 8)).slice().buffer).getBigUint64(0, true);
  if (length > LIMIT) refuse(`its header is said to be ${length} bytes long; the limit is ${LIMIT}`);
  if (length > BigInt(source.size - 8)) refuse(`it ends inside its header, which is said to be ${length} bytes long`);
  const data = 8 + Number(length);
  const bytes = await source.read(8, data);
  if (bytes[0] !== 0x7b) refuse("its header does not begin with {");
  const header = parseJson(bytes, "header", "its header");

  const metadata = header.get("__metadata__");
  if (header.delete("__metadata__")) texts(metadata);
  const entries = new Map([...header].map(([name, entry]) => [name, checked(name, entry)]));
  contiguous(entries, BigInt(source.size - data));
  return { entries, metadata, data };
}

/** The list of section 1's integers, or null: none with a fraction or exponent, none below 0 or above 2^63 - 1. */
export function sizesIn(value) {
  const sizes = Array.isArray(value) && value.every((size) => typeof size === "bigint" && size >= 0n && size < END);
  return sizes && value.length <= RANK ? value : null;
}

/** How many elements a shape has, or null where those of its sizes that are not 0 come to 2^63 bytes or more. */
export function elements(shape, itemSize) {
  const product = shape.reduce((all, size) => all * (size || 1n), 1n);
  if (product * BigInt(itemSize) >= END) return null;
  return shape.includes(0n) ? 0n : product;
}

function texts(metadata) {
  if (!(metadata instanceof Map) || ![...metadata.values()].every((value) => typeof value === "string"))
    refuse("__metadata__ is no object of texts");
}

function checked(name, entry) {
  const fail = (problem) => refuse(`${JSON.stringify(name)}: ${problem}`);
  if (!(entry instanceof Map)) fail("its entry is no object");
  const code = entry.get("dtype");
  const dtype = NATIVE.get(code);
  if (!dtype) fail(`dtype ${typeof code === "string" ? code : "is no text, which"} is not in the table`);
  const shape = sizesIn(entry.get("shape"));
  if (!shape) fail("its shape is no list of at most 64 sizes");
  const offsets = sizesIn(entry.get("data_offsets"));
  if (!offsets || offsets.length !== 2) fail("its data_offsets are no two sizes");
  const [begin, end] = offsets;
  const count = elements(shape, dtype.size);
  if (count === null) fail("its shape comes to 2^63 bytes or more");
  if (end - begin !== count * BigInt(dtype.size)) fail(`its data_offsets are not the size of ${code} [${shape}]`);
  return { code, shape, begin, end };
}

function contiguous(entries, size) {
  let at = 0n;
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
  const sorted = [...entries].sort(([, a], [, b]) => order(a.begin, b.begin) || order(a.end, b.end));
  for (const [name, { begin, end }] of sorted) {
    if (begin > at) refuse(`there is a hole before ${JSON.stringify(name)}`);
    if (begin < at) refuse(`${JSON.stringify(name)} and the tensor before it overlap`);
    at = end;
  }
  if (at !== size) refuse(`its tensors end at byte ${at} of the data, the file at ${size}`);
}

function refuse(problem) {
  throw new WioError("header", problem);
}
