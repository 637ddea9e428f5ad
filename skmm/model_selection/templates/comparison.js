// Sort a table by the column whose heading is clicked; the page reads as well without it.
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "descending";
  // A strategy that failed has one wide cell instead of numbers.
  const cell = row => row.cells[Math.min(column, row.cells.length - 1)];
  const value = row => cell(row).dataset.value ?? cell(row).textContent;
  const rows = [...body.rows].sort((a, b) => value(a).localeCompare(value(b), undefined, {numeric: true}));
  const number = row => parseFloat(value(row));
  if (head.classList.contains("number")) rows.sort((a, b) =>
    (isNaN(number(a)) - isNaN(number(b))) || (up ? 1 : -1) * (number(a) - number(b)));
  else if (!up) rows.reverse();
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
});
