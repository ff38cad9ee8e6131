/** Every test vector of the specification, and its tables, under Node: node --test viewer/tests/vectors.test.js */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { DTYPES } from "../dtypes.js";
import { WioError } from "../errors.js";
import { parseJson, plain } from "../json.js";
import { Layout, LETTERS, rearrange } from "../layout.js";
import { ROLES } from "../roles.js";
import { Sha256 } from "../sha256.js";
import { openSet } from "../set.js";
import { blobSource, openWio } from "../wio.js";

const SPEC = new URL("../../spec/", import.meta.url);
const TEXT = readFileSync(new URL("wio-1.md", SPEC), "utf8");
const named = (part) =>
  readdirSync(new URL(`vectors/${part}`, SPEC)).filter((name) => name.endsWith(".wio")).map((name) => name.slice(0, -4));
const opened = (part, name) => openWio(blobSource(new Blob([readFileSync(new URL(`vectors/${part}/${name}.wio`, SPEC))])));
/** The statement beside a vector; integers beyond 2^53 stay whole. */
const stated = (path) => plain(parseJson(readFileSync(new URL(`vectors/${path}.json`, SPEC)), "test", path));
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const integers = (value) => (typeof value === "bigint" && Number.isSafeInteger(Number(value)) ? Number(value) : value);
const asStated = (value) => {
  if (value instanceof Uint8Array) return hex(value);
  if (typeof value === "number" && !Number.isFinite(value))
    return String(value).toLowerCase().replace("infinity", "inf");
  return integers(value);
};

/** What an open file or set comes to, held against what is stated of it. */
async function isAsStated(file, expected) {
  const tensors = [];
  for (const tensor of file.tensors) {
    await file.verify(tensor);
    const { name, dtype, shape, role, layout, origin, layer, sha256, shard } = tensor;
    const bytes = hex(await file.bytes(tensor));
    const values = (await file.values(tensor)).map(asStated);
    const seen = { name, dtype, shape, role, layout: layout && String(layout), origin, layer, sha256, bytes, values };
    tensors.push(shard === undefined ? seen : { ...seen, shard });
  }
  assert.deepEqual(tensors.map((each) => ({ ...each })), expected.tensors.map((each) => ({ ...each })));
  assert.deepEqual(file.metadata, expected.metadata);
  assert.deepEqual(file.unknownKeys, { ...expected.unknown_keys });
  assert.deepEqual(await file.receipt(), expected.receipt);
}

for (const name of named("valid"))
  test(`valid/${name} is read as stated`, async () => isAsStated(await opened("valid", name), stated(`valid/${name}`)));

const sets = (part) =>
  readdirSync(new URL(`vectors/sharded/${part}`, SPEC)).filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
function openedSet(part, name) {
  const folder = new URL(`vectors/sharded/${part}/${name}/`, SPEC);
  const held = readdirSync(folder);
  const source = (file) => blobSource(new Blob([readFileSync(new URL(encodeURIComponent(file), folder))]));
  return openSet(source("NAME.wio.index.json"), async (file) => (held.includes(file) ? source(file) : null));
}

for (const name of sets("valid"))
  test(`sharded/valid/${name} is read as stated`, async () =>
    isAsStated(await openedSet("valid", name), stated(`sharded/valid/${name}`)));

/** Does what `found` says has to find the fault at the latest, and nothing after it. */
async function use(opening, found) {
  const file = await opening;
  assert.notEqual(found, "open", "the file was opened");
  if (found === "receipt") await file.receipt();
  for (const tensor of file.tensors)
    if (found === "verify") await file.verify(tensor);
    else if (found === "read") await file.values(tensor);
}

async function isRefused(opening, { kind, found, words }) {
  await assert.rejects(use(opening, found), (error) => {
    assert.ok(error instanceof WioError, String(error.stack));
    assert.equal(error.kind, kind, error.message);
    assert.deepEqual(words.filter((word) => !error.message.includes(word)), [], error.message);
    return true;
  });
}

for (const name of named("invalid"))
  test(`invalid/${name} is refused for what is wrong with it`, () =>
    isRefused(opened("invalid", name), stated(`invalid/${name}`)));

for (const name of sets("invalid"))
  test(`sharded/invalid/${name} is refused for what is wrong with it`, () =>
    isRefused(openedSet("invalid", name), stated(`sharded/invalid/${name}`)));

const LAYOUTS = stated("layouts");
const refused = { name: "WioError", kind: "layout" };

test("texts of layouts have their canonical form", () => {
  for (const { text, canonical } of LAYOUTS.texts) assert.equal(String(Layout.parse(text)), canonical);
});

test("texts that are no layout are refused", () => {
  for (const { text, why } of LAYOUTS.refused) assert.throws(() => Layout.parse(text), refused, why);
});

test("shapes refute the layouts that they refute", () => {
  for (const { layout, shape, refuted } of LAYOUTS.shapes)
    assert.equal(Layout.parse(layout).refutedBy(shape.map(BigInt)) !== null, refuted, `${layout} [${shape}]`);
});

test("arrays are rearranged element by element", () => {
  for (const { source, target, shape, result_shape, result } of LAYOUTS.rearrangements) {
    const found = rearrange(Layout.parse(source), Layout.parse(target), shape);
    assert.deepEqual(found, { shape: result_shape, order: result }, `${source} to ${target}`);
  }
});

test("where there is no way, none is taken", () => {
  for (const { source, target, why } of LAYOUTS.impossible) {
    const from = Layout.parse(source);
    assert.throws(() => rearrange(from, Layout.parse(target), from.axes.map(() => 8)), refused, why);
  }
});

/** The rows of a generated table of the text, their cells without backquotes. */
function table(name) {
  const block = TEXT.split(`<!-- generated: ${name} -->\n`)[1].split("<!-- end -->")[0];
  return block.trim().split("\n").slice(2).map((row) => row.split("|").slice(1, -1).map((cell) => cell.replaceAll("`", "").trim()));
}

test("the tables here are those of the specification", () => {
  assert.deepEqual(
    [...DTYPES.values()].map(({ name, size, code, encoding }) => [name, String(size ?? "varies"), code, encoding ?? ""]),
    table("dtypes").map(([name, size, code, , encoding]) => [name, size, code, encoding]),
  );
  assert.deepEqual([...LETTERS.keys()], table("letters").map(([letter]) => letter));
  const roles = [...ROLES].map(([role, layouts]) => [role, layouts.join(", ") || "none"]);
  assert.deepEqual(roles.sort(), table("roles").map(([role, layouts]) => [role, layouts]).sort());
});

test("SHA-256 of pieces is that of the whole", () => {
  const bytes = randomBytes(1000);
  for (let length = 0; length <= 200; length++) {
    const digest = new Sha256();
    for (let at = 0; at < length; at += 1 + (length % 67)) digest.update(bytes.subarray(at, Math.min(at + 1 + (length % 67), length)));
    assert.equal(digest.hex(), createHash("sha256").update(bytes.subarray(0, length)).digest("hex"), `${length} bytes`);
  }
});
