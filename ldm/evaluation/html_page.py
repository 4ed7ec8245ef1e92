"""One self-contained HTML page: the tables, and every image with its pictures side by side, worst first.

Pictures are JPEG thumbnails inside the page; a click on a column's head sorts by it, the worst on top.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from ldm.evaluation.metrics import MEASURES, heading
from ldm.evaluation.results import Insertion, References, Row
from ldm.evaluation.tables import measured
from ldm.insertion.contact_sheet import close_up, thumbnail
from ldm.insertion.roi import Roi, crop, plan_roi

SIDE = 224  # pixels of a thumbnail
QUALITY = 85  # of its JPEG
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #ddd; padding: 4px 8px; text-align: right; vertical-align: middle; }
th { background: #f4f4f4; position: sticky; top: 0; }
th[data-better] { cursor: pointer; }
th.sorted { background: #dce8f8; }
td.text, th.text { text-align: left; }
img { display: block; width: 150px; image-rendering: auto; }
img:hover { transform: scale(2.2); position: relative; z-index: 2; box-shadow: 0 0 8px #555; }
.wide { overflow-x: auto; }
"""
SCRIPT = """
const table = document.getElementById('images'), heads = [...table.tHead.rows[0].cells];
function sortBy(head, worstFirst) {
  const i = heads.indexOf(head), better = +head.dataset.better, rows = [...table.tBodies[0].rows];
  const value = row => row.cells[i].dataset.value;
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === '' || y === '') return (x === '') - (y === '');
    const order = better ? (x - y) * better : x.localeCompare(y, undefined, { numeric: true });
    return worstFirst ? order : -order;
  });
  table.tBodies[0].append(...rows);
  heads.forEach(h => h.classList.toggle('sorted', h === head));
  table.dataset.worstFirst = worstFirst;
}
heads.filter(h => h.dataset.better).forEach(head => head.addEventListener('click', () =>
  sortBy(head, !(head.classList.contains('sorted') && table.dataset.worstFirst === 'true'))));
"""


def page(
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Sequence[Sequence[str]]],
    rows: Sequence[Row],
    insertions: Sequence[Insertion],
    others: Mapping[str, Insertion],
) -> Iterator[str]:
    """The page in pieces, so that memory holds the pictures of one row. `others` are another run's, by name.

    `rows` belong to `insertions`, one to one.
    """
    names = measured(rows)
    first = next((name for name in names if MEASURES[name].better), None)
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
    yield f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n"
    yield "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    for caption, text in tables.items():
        yield f'<h2>{escape(caption)}</h2>\n<div class="wide">{_text_table(text)}</div>\n'
    shown = ["background", "mask", "reference", "result"]
    shown += ["other run"] * bool(others) + ["truth"] * any(x.site.truth for x in insertions)
    order = f"worst first by {heading(first)}" if first else "in the order of the run"
    yield f"<h2>Images, {escape(order)}</h2>\n"
    yield f'<table id="images" data-worst-first="true"><thead><tr>{_heads(shown, names, first)}</tr></thead>'
    yield "<tbody>\n"
    known: dict[References, str] = {}
    for row, insertion in worst_first(list(zip(rows, insertions, strict=True)), first):
        yield _image_row(row, insertion, others.get(insertion.name), shown, names, known)
    yield f"</tbody></table>\n<script>{SCRIPT}</script></html>\n"


def worst_first(pairs: Sequence[tuple[Row, Insertion]], name: str | None) -> list[tuple[Row, Insertion]]:
    """Sorted by one measure; rows without it come last."""
    if name is None:
        return list(pairs)
    way = MEASURES[name].better
    return sorted(pairs, key=lambda pair: way * pair[0]["scores"].get(name, way * np.inf))


def _heads(shown: Sequence[str], names: Sequence[str], first: str | None) -> str:
    cells = [
        f'<th class="text" data-better="0">{text}</th>' for text in ("image", "object", "method", "model")
    ]
    cells += [f"<th>{text}</th>" for text in shown]
    for name in names:
        style = ' class="sorted"' if name == first else ""
        # seconds: the most on top
        cells.append(f'<th{style} data-better="{MEASURES[name].better or -1}">{escape(heading(name))}</th>')
    return "".join(cells)


def _image_row(
    row: Row,
    insertion: Insertion,
    other: Insertion | None,
    shown: Sequence[str],
    names: Sequence[str],
    known: dict[References, str],
) -> str:
    cells = [_text(row[key]) for key in ("name", "object", "method", "model")]
    pictures = _pictures(insertion, other, known)
    cells += [f"<td>{pictures.get(kind, '')}</td>" for kind in shown]
    for name in names:
        value = row["scores"].get(name)
        text = "" if value is None else f"{value:.{MEASURES[name].decimals}f}"
        cells.append(f'<td data-value="{"" if value is None else json.dumps(value)}">{text}</td>')
    return f"<tr>{''.join(cells)}</tr>\n"


def _pictures(insertion: Insertion, other: Insertion | None, known: dict[References, str]) -> dict[str, str]:
    """The close-up of each picture as an <img>; a reference is encoded once."""
    result, images = insertion.read()
    roi = images.rois[0] if len(images.rois) == 1 else plan_roi(images.mask)
    if insertion.references not in known:
        known[insertion.references] = _img(insertion.references.picture(), str(insertion.references.whole))
    found = {
        "background": _img(close_up(images.background, roi), str(insertion.site.case.background)),
        "mask": _img(_white(images.mask, roi), "white: insert here"),
        "reference": known[insertion.references],
        "result": _img(close_up(result, roi), str(insertion.result)),
    }
    if images.truth is not None:
        found["truth"] = _img(close_up(images.truth, roi), str(insertion.site.truth))
    if other is not None:
        found["other run"] = _img(close_up(other.read()[0], roi), str(other.result))
    return found


def _white(mask: np.ndarray, roi: Roi) -> np.ndarray:
    """The mask as pixels uint8 [h,w,3]."""
    return (crop(mask, roi)[..., None] * np.uint8(255)).repeat(3, axis=2)


def _img(pixels: np.ndarray, title: str) -> str:
    out = BytesIO()
    Image.fromarray(thumbnail(pixels, SIDE)).save(out, "JPEG", quality=QUALITY)
    data = b64encode(out.getvalue()).decode()
    return f'<img loading="lazy" alt="" title="{escape(title)}" src="data:image/jpeg;base64,{data}">'


def _text(value: str) -> str:
    return f'<td class="text" data-value="{escape(value)}">{escape(value)}</td>'


def _text_table(text: Sequence[Sequence[str]]) -> str:
    head, *body = text
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in body]
    return f"<table>{''.join(lines)}</table>"
