import { WioError } from "./errors.js";
import { parseJson, plain } from "./json.js";
import { sha256 } from "./sha256.js";
import { DIGEST, knownVersion, openWio, unknown } from "./wio.js";

const LIMIT = 100_000_000;
const KEYS = ["version", "generator", "metadata", "shards", "receipt"];

/**
 * A network in several files (section 15), to be used as one that is open: `index` is the source of the index, and
 * `named(file)` promises the source of a file beside it, or null. No shard's name is ever a path.
 */
export async function openSet(index, named) {
  if (index.size > LIMIT) refuse(`it is over ${LIMIT} bytes`);
  const document = parseJson(await index.read(0, index.size), "index", "the index");
  const own = document instanceof Map ? document.get("wio") : null;
  if (!(own instanceof Map)) refuse("it is no JSON object with an object wio: no index of this format");
  knownVersion(own.get("version"), "the index");
  const listed = shardsOf(own.get("shards"), document.get("weight_map"));
  const total = document.get("metadata") instanceof Map ? document.get("metadata").get("total_size") : undefined;
  if (typeof total !== "bigint" || total < 0n) refuse("its total_size is no size");
  for (const key of ["metadata", "receipt"])
    if (own.has(key) && !(own.get(key) instanceof Map)) refuse(`its ${key} is no object`);
  if (own.get("metadata")?.has("unknown_keys")) refuse("unknown_keys may not stand in its metadata");

  const shards = [];
  for (const shard of listed) shards.push({ name: shard.get("file"), file: await opened(shard, named) });
  const set = new WioSet(own, shards);
  compare(set, document.get("weight_map"), total);
  return set;
}

/** An open set: what an open file has, over all its shards. Each tensor has the `shard` that holds it. */
class WioSet {
  constructor(own, shards) {
    this.generator = typeof own.get("generator") === "string" ? own.get("generator") : null;
    this.metadata = plain(own.get("metadata") ?? new Map());
    this.account = own.has("receipt") ? plain(own.get("receipt")) : null;
    this.tensors = shards.flatMap(({ name, file }) => file.tensors.map((tensor) => ({ ...tensor, shard: name })));
    this.files = new Map(shards.map(({ name, file }) => [name, file]));
    const tensors = shards.map(({ file }) => file.unknownKeys.tensors);
    this.unknownKeys = { file: unknown(own, KEYS), tensors: Object.assign(Object.create(null), ...tensors) };
  }

  bytes(tensor, begin, end) {
    return this.files.get(tensor.shard).bytes(tensor, begin, end);
  }

  values(tensor) {
    return this.files.get(tensor.shard).values(tensor);
  }

  verify(tensor) {
    return this.files.get(tensor.shard).verify(tensor);
  }

  async receipt() {
    return this.account;
  }
}

/** The list of shards, each with a plain name, a size and a digest, and held against the files of the weight_map. */
function shardsOf(shards, weightMap) {
  if (!(weightMap instanceof Map) || ![...weightMap.values()].every((file) => typeof file === "string"))
    refuse("its weight_map is no object of names of files");
  if (!Array.isArray(shards) || !shards.every((shard) => shard instanceof Map))
    refuse("its shards are no list of objects");
  const files = new Set();
  for (const shard of shards) {
    const file = shard.get("file");
    if (typeof file !== "string") refuse("a shard has no file");
    if (["", ".", ".."].includes(file) || /[/\\\0]/.test(file))
      throw new WioError("place", `${JSON.stringify(file)} is no name of a file in the folder of the index`);
    const size = shard.get("size");
    if (typeof size !== "bigint" || size < 0n) refuse(`${file}: its size is no size`);
    const digest = shard.get("header_sha256");
    if (typeof digest !== "string" || !DIGEST.test(digest)) refuse(`${file}: its header_sha256 is no digest`);
    if (files.has(file)) refuse(`${file} is listed twice`);
    files.add(file);
  }
  const mapped = new Set(weightMap.values());
  for (const file of mapped) if (!files.has(file)) refuse(`${file} of the weight_map is not among the shards`);
  for (const file of files) if (!mapped.has(file)) refuse(`${file} is a shard, and the weight_map does not know it`);
  return shards;
}

async function opened(shard, named) {
  const name = shard.get("file");
  const fail = (problem) => {
    throw new WioError("shard", `${name}: ${problem}`);
  };
  const source = await named(name);
  if (!source) fail("it is not there");
  if (BigInt(source.size) !== shard.get("size")) fail(`it has ${source.size} bytes, not the ${shard.get("size")} of the index`);
  const file = await openWio(source).catch((error) => (error instanceof WioError ? fail(error.message) : Promise.reject(error)));
  if (sha256(await source.read(0, file.header.data)) !== shard.get("header_sha256"))
    fail("its header is not the one of the index: another file, or one of another writing");
  return file;
}

/** The tensors of the shards against the weight_map: the same, each in its file, of the declared size together. */
function compare(set, weightMap, total) {
  const fail = (name, problem) => {
    throw new WioError("tensors", `${JSON.stringify(name)} ${problem}`);
  };
  const found = new Set();
  for (const { name, shard } of set.tensors) {
    if (found.has(name)) fail(name, "is in two shards");
    found.add(name);
    if (!weightMap.has(name)) fail(name, `of ${shard} is not in the weight_map`);
    if (weightMap.get(name) !== shard) fail(name, `is in ${shard}, not in ${weightMap.get(name)}`);
  }
  for (const name of weightMap.keys()) if (!found.has(name)) fail(name, "of the weight_map is in no shard");
  const stored = set.tensors.reduce((sum, tensor) => sum + BigInt(tensor.nbytes), 0n);
  if (stored !== total) refuse(`its total_size is ${total}, and the tensors have ${stored} bytes`);
}

function refuse(problem) {
  throw new WioError("index", `the index: ${problem}`);
}
