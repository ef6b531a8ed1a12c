"""Every CSV table as one HTML file that sorts by a click on a column's head, and shows a model alone, offline.

    python -m workflow.tradeoff.report.htmltables --tables results/demo/tables --output results/demo/tables/html

Give names of tables to write only these. The words of notes.json stand over each table.
"""

import html
from pathlib import Path

import pandas as pd

from workflow.tradeoff import columns, errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file, read_json
from workflow.tradeoff.words import number

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.25rem; margin: 0 0 .3rem; } p { max-width: 60rem; color: #444; margin: 0 0 1rem; }
div.wide { overflow: auto; max-height: 84vh; } @media print { div.wide { overflow: visible; max-height: none; } }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; max-width: 36rem; }
td { white-space: nowrap; } td.t { white-space: normal; min-width: 24rem; }
td.n, th.n { text-align: right; } th { border-bottom: 2px solid #555; white-space: nowrap; background: #fff; }
th { position: sticky; top: 0; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody tr:hover { background: #f3f6f9; } label { margin-right: 1.2rem; } @media print { p.choose { display: none; } }
"""
CHOSEN_BY = (
    "machine",
    "model",
    "variant",
    "status",
    "scenario",
    "convention",
    "load",
)  # columns whose rows can be shown alone
LONG = 40  # characters of a text that is broken into lines, in a column wide enough to read it
# the value to sort by stands in data-v, so that 10 follows 9 and an empty cell comes last either way
SCRIPT = """
document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.parentElement, body = head.closest("table").tBodies[0], place = head.cellIndex;
    var down = head.getAttribute("aria-sort") === "ascending";
    head.parentElement.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows).map(function (row) { return [row.cells[place].dataset.v, row]; }).sort(function (a, b) {
      if (a[0] === "" || b[0] === "") { return (a[0] === "") - (b[0] === ""); }
      var x = Number(a[0]), y = Number(b[0]);
      var order = isNaN(x) || isNaN(y) ? a[0].localeCompare(b[0]) : x - y;
      return down ? -order : order;
    }).forEach(function (pair) { body.appendChild(pair[1]); });
  });
});
var choices = Array.from(document.querySelectorAll("select"));
choices.forEach(function (choice) {
  choice.addEventListener("change", function () {
    var rows = Array.from(document.querySelector("tbody").rows);
    rows.forEach(function (row) {
      row.hidden = !choices.every(function (other) {
        return other.value === "" || row.cells[other.dataset.column].dataset.v === other.value;
      });
    });
    var shown = rows.filter(function (row) { return !row.hidden; }).length;
    document.querySelector("output").textContent = shown + " of " + rows.length + " rows";
  });
});
"""


def page(table: pd.DataFrame, title: str, note: str) -> str:
    """A whole HTML page; nothing in it asks for another file."""
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    heads = "".join(
        f'<th scope="col"{_number_class(is_number)}><button type="button">{html.escape(str(name))}</button></th>'
        for name, is_number in zip(table.columns, numeric, strict=True)
    )
    lines = "\n".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(row, numeric, strict=True))}</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>
<link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<p>{html.escape(note)}</p>
{_choices(table)}<div class="wide"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table></div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _choices(table: pd.DataFrame) -> str:
    """A list of values for each column by which rows can be shown alone; nothing where there is no choice."""
    lists = []
    for place, name in enumerate(table.columns):
        values = sorted(table[name].dropna().astype(str).unique()) if name in CHOSEN_BY else []
        if 1 < len(values) < len(table):
            options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
            every = '<option value="">all</option>'
            lists.append(f'<label>{html.escape(name)} <select data-column="{place}">{every}{options}</select></label>')
    return f'<p class="choose">{"".join(lists)}<output>{len(table)} rows</output></p>\n' if lists else ""


def _number_class(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _cell(value, is_number: bool) -> str:
    if pd.isna(value):
        return f'<td{_number_class(is_number)} data-v="">–</td>'
    shown = number(value) if is_number else str(value)
    kind = ' class="t"' if len(shown) > LONG else _number_class(is_number)
    return f'<td{kind} data-v="{html.escape(str(value), quote=True)}">{html.escape(shown)}</td>'


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("names", nargs="*", help="tables to write; default: every CSV in the folder")
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    options = parser.parse_args(argv)
    notes = read_json(options.tables / "notes.json")
    for name in options.names or sorted(path.stem for path in options.tables.glob("*.csv")):
        source = options.tables / f"{name}.csv"
        if not source.is_file():
            raise UserError(f"{source} does not exist: give names of tables that were written")
        words = notes.get(name, {"title": name.replace("_", " ").capitalize(), "note": ""})
        with atomic_file(options.output / f"{name}.html") as temporary:
            temporary.write_text(page(pd.read_csv(source, dtype=columns.DIGESTS), words["title"], words["note"]))


if __name__ == "__main__":
    errors.run(main)
