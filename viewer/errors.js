/**
 * The one error of this reader. `kind` is what a test vector calls it: header, version, declaration, stale, layout,
 * encoding, reserved or digest.
 */
export class WioError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "WioError";
    this.kind = kind;
  }
}
