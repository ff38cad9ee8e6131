
"use strict";
for (const table of document.querySelectorAll("table[id]")) {
  const body = table.tBodies[0], rows = [...body.rows], headings = [...table.tHead.rows[0].cells];
  // Empty cells sort last whichever way a column runs.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
  };
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : a === b ? 0 : 1;
  headings.forEach((heading, column) => heading.firstChild.addEventListener("click", () => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    headings.forEach(each => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map(row => [key(row, column), row]);
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (up ? order(a, b) : order(b, a)));
    body.append(...keyed.map(([, row]) => row));
  }));
  const search = document.querySelector(`input[aria-controls="${table.id}"]`);
  const count = search.closest("p").querySelector("output");
  const texts = rows.map(row => row.textContent.toLowerCase());
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, k) => {
      const found = words.every(word => texts[k].includes(word));
      row.hidden = !found;
      shown += found;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : `${rows.length}`;
  };
  search.addEventListener("input", filter);
  search.closest("p").hidden = false;
  filter();
}
