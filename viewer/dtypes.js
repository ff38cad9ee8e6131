import { WioError } from "./errors.js";

/** Section 5: for each dtype the size of an element, its safetensors code or its encoding, and how a value is read. */
export const DTYPES = new Map(
  [
    ["bool", 1, "BOOL", null, (view, at) => view.getUint8(at) !== 0],
    ["uint8", 1, "U8", null, (view, at) => view.getUint8(at)],
    ["int8", 1, "I8", null, (view, at) => view.getInt8(at)],
    ["uint16", 2, "U16", null, (view, at) => view.getUint16(at, true)],
    ["int16", 2, "I16", null, (view, at) => view.getInt16(at, true)],
    ["uint32", 4, "U32", null, (view, at) => view.getUint32(at, true)],
    ["int32", 4, "I32", null, (view, at) => view.getInt32(at, true)],
    ["uint64", 8, "U64", null, (view, at) => view.getBigUint64(at, true)],
    ["int64", 8, "I64", null, (view, at) => view.getBigInt64(at, true)],
    ["float16", 2, "F16", null, (view, at) => smallFloat(view.getUint16(at, true), 5, 10, 15, "ieee")],
    ["bfloat16", 2, "BF16", null, (view, at) => smallFloat(view.getUint16(at, true), 8, 7, 127, "ieee")],
    ["float32", 4, "F32", null, (view, at) => view.getFloat32(at, true)],
    ["float64", 8, "F64", null, (view, at) => view.getFloat64(at, true)],
    ["complex64", 8, "C64", null, (view, at) => [view.getFloat32(at, true), view.getFloat32(at + 4, true)]],
    ["float8_e5m2", 1, "F8_E5M2", null, (view, at) => smallFloat(view.getUint8(at), 5, 2, 15, "ieee")],
    ["float8_e4m3fn", 1, "F8_E4M3", null, (view, at) => smallFloat(view.getUint8(at), 4, 3, 7, "fn")],
    ["float8_e8m0fnu", 1, "F8_E8M0", null, (view, at) => powerOfTwo(view.getUint8(at))],
    ["float8_e4m3fnuz", 1, "U8", "elements", (view, at) => smallFloat(view.getUint8(at), 4, 3, 8, "fnuz")],
    ["float8_e5m2fnuz", 1, "U8", "elements", (view, at) => smallFloat(view.getUint8(at), 5, 2, 16, "fnuz")],
    ["float8_e4m3b11fnuz", 1, "U8", "elements", (view, at) => smallFloat(view.getUint8(at), 4, 3, 11, "fnuz")],
    ["complex128", 16, "U8", "elements", (view, at) => [view.getFloat64(at, true), view.getFloat64(at + 8, true)]],
    ["int2", 1, "U8", "elements", (view, at) => (view.getUint8(at) << 30) >> 30],
    ["uint2", 1, "U8", "elements", (view, at) => view.getUint8(at) & 3],
    ["int4", 1, "U8", "elements", (view, at) => (view.getUint8(at) << 28) >> 28],
    ["uint4", 1, "U8", "elements", (view, at) => view.getUint8(at) & 15],
    ["qint8", 1, "U8", "elements", (view, at) => view.getInt8(at)],
    ["quint8", 1, "U8", "elements", (view, at) => view.getUint8(at)],
    ["qint16", 2, "U8", "elements", (view, at) => view.getInt16(at, true)],
    ["quint16", 2, "U8", "elements", (view, at) => view.getUint16(at, true)],
    ["qint32", 4, "U8", "elements", (view, at) => view.getInt32(at, true)],
    ["string", null, "U8", "varbytes", null],
    ["variant", null, "U8", "varbytes", null],
  ].map(([name, size, code, encoding, read]) => [name, { name, size, code, encoding, read }]),
);

/** The dtypes that safetensors has, by its codes. */
export const NATIVE = new Map([...DTYPES.values()].filter((dtype) => !dtype.encoding).map((d) => [d.code, d]));

/**
 * The elements of stored bytes in C order: numbers, 64-bit integers as BigInt, complex numbers as pairs, byte strings
 * as Uint8Array. `count` is the product of the shape.
 */
export function decode(name, dtype, bytes, count) {
  if (dtype.encoding === "varbytes") return byteStrings(name, bytes, count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, index) => dtype.read(view, index * dtype.size));
}

/**
 * A float of few bits. `ieee` has infinities; `fn` has none, and NaN only where all bits but the sign are set; `fnuz`
 * has neither, nor -0, whose place NaN takes.
 */
function smallFloat(bits, exponentBits, mantissaBits, bias, kind) {
  const negative = bits >>> (exponentBits + mantissaBits);
  const exponent = (bits >>> mantissaBits) & (2 ** exponentBits - 1);
  const mantissa = bits & (2 ** mantissaBits - 1);
  const last = exponent === 2 ** exponentBits - 1;
  if (kind === "ieee" && last) return mantissa ? NaN : negative ? -Infinity : Infinity;
  if (kind === "fn" && last && mantissa === 2 ** mantissaBits - 1) return NaN;
  if (kind === "fnuz" && negative && !exponent && !mantissa) return NaN;
  const significand = mantissa / 2 ** mantissaBits + (exponent ? 1 : 0);
  const value = significand * 2 ** (Math.max(exponent, 1) - bias);
  return negative ? -value : value;
}

function powerOfTwo(exponent) {
  return exponent === 255 ? NaN : 2 ** (exponent - 127);
}

/** Section 6: all lengths first, then all bytes. Nothing is taken before its length is known to be there. */
function byteStrings(name, bytes, count) {
  const lengths = [];
  let at = 0;
  for (let index = 0; index < count; index++) {
    let length = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (at >= bytes.length) refuse(name, "its lengths are cut short");
      const byte = bytes[at++];
      length |= BigInt(byte & 127) << shift;
      if (length >> 63n) refuse(name, "a length of 2^63 bytes or more");
      if (byte & 128) continue;
      if (byte === 0 && shift) refuse(name, "a length is not written in the fewest bytes");
      break;
    }
    lengths.push(length);
  }
  const total = lengths.reduce((sum, length) => sum + length, 0n);
  if (total !== BigInt(bytes.length - at))
    refuse(name, `its lengths sum to ${total}, and ${bytes.length - at} bytes are left`);
  return lengths.map((length) => bytes.subarray(at, (at += Number(length))));
}

function refuse(name, problem) {
  throw new WioError("encoding", `${JSON.stringify(name)}: ${problem}`);
}
