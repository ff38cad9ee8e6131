import { gatesOf } from "./layout.js";
import { colour, count, pictureOf, unfold } from "./picture.js";

const AREA = { width: 640, height: 480 };
const TILE = 40;
const CELL = 8;
const TABLE = 16;
const at = (id) => document.getElementById(id);

/** A tensor on the canvas: as many tiles as fit, from the row and column that the reader asks for. */
export class Drawing {
  constructor(tensor, numbers, largest) {
    this.tensor = tensor;
    this.numbers = numbers;
    this.largest = largest;
    this.picture = pictureOf(tensor.layout, tensor.shape);
    this.rows = count(this.picture.rows);
    this.columns = count(this.picture.columns);
  }

  reset() {
    const { rows, columns, height, width, spatial } = this.picture;
    const along = (parts, way) => (parts.length ? `${parts.map(([letters]) => letters).join(" ")} ${way}` : "");
    const parts = [along(rows, "from top to bottom"), along(columns, "from left to right")].filter(Boolean);
    at("drawing-title").textContent = spatial ? `Drawn: tiles of ${height} x ${width}` : "Drawn";
    const turned = this.tensor.layout.flipped ? "Stored backwards, and turned round here: as a cross-correlation applies them. " : "";
    at("orientation").textContent = turned + parts.join(", ");
    at("scale").textContent = `Blue is below zero, red above, white zero; full colour is ${Number(this.largest.toPrecision(4))}. Yellow is not finite.`;
    for (const [id, length] of [["row", this.rows], ["column", this.columns]]) {
      at(id).max = length - 1;
      at(id).value = 0;
    }
    this.draw();
  }

  draw() {
    const { height, width, spatial } = this.picture;
    const row = this.start("row");
    const column = this.start("column");
    const scale = Math.max(1, Math.min(CELL, Math.floor(TILE / Math.max(height, width))));
    const gap = spatial ? 2 : 0;
    const tile = { width: width * scale + gap, height: height * scale + gap };
    const down = Math.min(this.rows - row, Math.max(1, Math.floor(AREA.height / tile.height)));
    const across = Math.min(this.columns - column, Math.max(1, Math.floor(AREA.width / tile.width)));
    const canvas = at("canvas");
    canvas.width = across * tile.width;
    canvas.height = down * tile.height;
    const context = canvas.getContext("2d");
    for (let r = 0; r < down; r++)
      for (let c = 0; c < across; c++)
        for (let h = 0; h < height; h++)
          for (let w = 0; w < width; w++) {
            const value = this.numbers[this.picture.element(row + r, column + c, h, w)];
            context.fillStyle = `rgb(${colour(value, this.largest).join(" ")})`;
            context.fillRect(c * tile.width + w * scale, r * tile.height + h * scale, scale, scale);
          }
    const shown = (first, length, all) => `${first} to ${first + length - 1} of ${all}`;
    const window = `rows ${shown(row, down, this.rows)}, columns ${shown(column, across, this.columns)}`;
    at("window").textContent = window;
    canvas.ariaLabel = `${at("drawing-title").textContent}: ${window}`;
    this.table(row, column);
  }

  /** The numbers of one tile, for who does not see the colours. */
  table(row, column) {
    const { rows, columns, height, width, element } = this.picture;
    const index = new Map([...unfold(rows, row), ...unfold(columns, column)]);
    const table = at("tile");
    table.replaceChildren();
    const gates = this.tensor.layout.gates && gatesOf(this.tensor.layout);
    const place = ([letters]) => `${letters} ${letters === "G" && gates ? gates[index.get("G")] : index.get(letters)}`;
    table.createCaption().textContent = [...rows, ...columns].map(place).join(", ");
    for (let h = 0; h < Math.min(height, TABLE); h++) {
      const line = table.insertRow();
      for (let w = 0; w < Math.min(width, TABLE); w++)
        line.insertCell().textContent = String(Number(this.numbers[element(row, column, h, w)].toPrecision(6)));
    }
  }

  start(id) {
    const wanted = Math.trunc(Number(at(id).value)) || 0;
    return Math.min(Math.max(0, wanted), Number(at(id).max));
  }
}
