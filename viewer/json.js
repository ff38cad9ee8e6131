import { WioError } from "./errors.js";

/**
 * JSON as sections 1 and 2 of the specification want it, stricter than JSON.parse: no key twice, no number out of the
 * range of a double, no half of a surrogate pair, at most 100 levels.
 *
 * An object becomes a Map, for a key may be `__proto__`. A number that is written as an integer becomes a BigInt and
 * any other a Number: `1.0` is no version.
 */
export function parseJson(bytes, kind, what) {
  return new Parser(decoded(bytes, kind, what), kind, what).document();
}

/** The same value in plain objects, without prototypes; integers that a Number holds become one. */
export function plain(value) {
  if (value instanceof Map) {
    const object = Object.create(null);
    for (const [key, inner] of value) object[key] = plain(inner);
    return object;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  return value;
}

function decoded(bytes, kind, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new WioError(kind, `${what} is not UTF-8`);
  }
}

const LEVELS = 100;
const SPACE = /[ \t\n\r]*/y;
const CHARACTERS = /[^"\\\u0000-\u001f]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const WORD = /[-+.\w]+/y;
const HEX = /[0-9a-fA-F]{4}/y;
const LITERALS = new Map([["true", true], ["false", false], ["null", null]]);
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

class Parser {
  constructor(text, kind, what) {
    this.text = text;
    this.kind = kind;
    this.what = what;
    this.at = 0;
  }

  document() {
    const value = this.value(1);
    this.match(SPACE);
    if (this.at < this.text.length) this.fail("something follows the JSON value");
    return value;
  }

  value(level) {
    this.match(SPACE);
    const first = this.text[this.at];
    if (first === "{" || first === "[") {
      if (level > LEVELS) this.fail(`it is nested more than ${LEVELS} levels deep`);
      return first === "{" ? this.object(level) : this.array(level);
    }
    if (first === '"') return this.string();
    return first === "-" || (first >= "0" && first <= "9") ? this.number() : this.literal();
  }

  object(level) {
    const members = new Map();
    this.items("}", () => {
      this.match(SPACE);
      if (this.text[this.at] !== '"') this.fail("a key is missing");
      const key = this.string();
      if (members.has(key)) this.fail(`the key ${JSON.stringify(key)} stands twice`);
      this.match(SPACE);
      if (this.text[this.at++] !== ":") this.fail("a colon is missing");
      members.set(key, this.value(level + 1));
    });
    return members;
  }

  array(level) {
    const items = [];
    this.items("]", () => items.push(this.value(level + 1)));
    return items;
  }

  /** From the opening bracket to the closing one: `item` reads what stands between commas. */
  items(close, item) {
    this.at++;
    this.match(SPACE);
    if (this.text[this.at] === close) {
      this.at++;
      return;
    }
    for (;;) {
      item();
      this.match(SPACE);
      const next = this.text[this.at++];
      if (next === close) return;
      if (next !== ",") this.fail(`a comma or ${close} is missing`);
    }
  }

  string() {
    this.at++;
    let result = this.match(CHARACTERS);
    while (this.text[this.at] === "\\") {
      result += this.escape();
      result += this.match(CHARACTERS);
    }
    if (this.text[this.at++] !== '"') this.fail("a text does not end, or has a control character");
    if (/\p{Surrogate}/u.test(result)) this.fail("half of a surrogate pair is no text");
    return result;
  }

  escape() {
    const letter = this.text[this.at + 1];
    this.at += 2;
    if (letter !== "u") return ESCAPES[letter] ?? this.fail("an escape that JSON does not have");
    const digits = this.match(HEX) || this.fail("an escape without four digits");
    return String.fromCharCode(parseInt(digits, 16));
  }

  number() {
    const written = this.match(NUMBER);
    if (!written) this.fail("a number is malformed");
    const value = Number(written);
    if (!Number.isFinite(value)) this.fail(`${written.slice(0, 40)} is out of the range of a double`);
    return /[.eE]/.test(written) ? value : BigInt(written);
  }

  literal() {
    const word = this.match(WORD);
    if (!LITERALS.has(word)) this.fail(`${word.slice(0, 40) || "what stands there"} is no JSON value`);
    return LITERALS.get(word);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return "";
    this.at = pattern.lastIndex;
    return found[0];
  }

  fail(problem) {
    throw new WioError(this.kind, `${this.what}: ${problem} (near character ${this.at})`);
  }
}
