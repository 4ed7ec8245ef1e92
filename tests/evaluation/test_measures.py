"""The three files say the same, and the page holds every picture, the worst image on top."""

import json
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.evaluation.collect import collect
from ldm.evaluation.measures import ScoredRun, write_measures
from ldm.evaluation.results import row_of
from tests.evaluation.test_collect import bench_results
from tests.fixtures.bench import COLOURS, write_bench


class Page(HTMLParser):
    """The rows of the page's table of images: texts, values and pictures of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[dict]] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.links += [found[key] for key in ("src", "href") if key in found]
        self.inside = (self.inside or found.get("id") == "images") if tag == "table" else self.inside
        if tag not in ("meta", "img", "p"):
            self.open.append(tag)
        if self.inside and tag == "tr":
            self.rows.append([])
        elif self.inside and tag in ("td", "th"):
            self.rows[-1].append({"text": "", **found})
        elif self.inside and tag == "img":
            self.rows[-1][-1]["picture"] = found["src"]

    def handle_endtag(self, tag: str) -> None:
        if tag != "p":
            assert self.open.pop() == tag, f"{tag} closes nothing"
        self.inside = self.inside and tag != "table"

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1]["text"] += data


def colour(src: str) -> np.ndarray:
    kind, _, data = src.partition(",")
    assert kind == "data:image/jpeg;base64"
    pixels = np.asarray(Image.open(BytesIO(b64decode(data))))
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].astype(int)


@pytest.fixture
def run(tmp_path: Path) -> ScoredRun:
    insertions = collect(bench_results(tmp_path / "out", write_bench(tmp_path / "bench")))
    scores = [0.8, 0.2, 0.5, 0.6]  # flat s1, s2, ceiling s1, s2
    rows = [row_of(x, {"v2/identity": s, "v2/seam": 1}, {}) for x, s in zip(insertions, scores, strict=True)]
    return ScoredRun(
        "out", insertions, rows, {"flat": {"paper/clip_fid": 12.345}, "ceiling": {"paper/clip_fid": 3}}
    )


def test_lines_and_tables_say_what_was_measured(tmp_path: Path, run: ScoredRun) -> None:
    lines, text, _ = write_measures(tmp_path / "report", run, ["Networks: X 123."])
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert rows == run.rows and rows[1]["scores"] == {"v2/identity": 0.2, "v2/seam": 1}
    assert rows[0]["model"] == "base2" and rows[0]["views"] == 2
    said = text.read_text("utf-8")
    assert "| flat | all | base2 | 2 | 0.500 [0.200, 0.800] |" in said and "Networks: X 123." in said
    assert "paper: CLIP-FID" in said and "| flat | 12.35 |" in said


def test_the_page_shows_every_picture_the_worst_first(tmp_path: Path, run: ScoredRun) -> None:
    *_, file = write_measures(tmp_path / "report", run, [])
    page = Page(file.read_text("utf-8"))
    assert not page.open and all(link.startswith("data:") for link in page.links)  # self-contained
    head, *rows = page.rows
    names = [cell["text"].strip() for cell in head]
    assert names[:4] == ["image", "object", "method", "model"]
    assert names[4:9] == ["background", "mask", "reference", "result", "truth"]
    assert names[9:] == ["v2: identity, to the truth", "v2: seam ratio"]
    assert [cell.get("data-better") for cell in head[-2:]] == ["1", "-1"]
    assert [row[9]["data-value"] for row in rows] == ["0.2", "0.5", "0.6", "0.8"]
    assert [row[0]["text"] for row in rows] == ["s2", "s1", "s2", "s1"] and rows[0][9]["text"] == "0.200"
    background, mask, reference, result, truth = (colour(rows[0][i]["picture"]) for i in range(4, 9))
    assert np.ptp(background) < 60 and (mask > 250).all() and np.abs(result - 90).max() < 4
    blue = np.array(COLOURS["brick"]).argmax()
    assert reference.argmax() == truth.argmax() == blue and truth[2] > truth[0] + 30


def test_two_runs_stand_side_by_side(tmp_path: Path, run: ScoredRun) -> None:
    half = [i for i, x in enumerate(run.insertions) if x.method == "flat"]
    flat = ScoredRun("out/flat", [run.insertions[i] for i in half], [run.rows[i] for i in half])
    _, text, file = write_measures(tmp_path / "report", run, [], flat)
    said = text.read_text("utf-8")
    assert "Ceiling against out/flat, paired by image" in said
    assert "| v2: identity, to the truth | 2 | 0.550 | 0.500 | +0.050 [-0.300, +0.400] | undecided |" in said
    head, *rows = Page(file.read_text("utf-8")).rows
    other = [cell["text"] for cell in head].index("other run")
    assert all("picture" in row[other] for row in rows)


def test_a_hostile_name_stays_text(tmp_path: Path, run: ScoredRun) -> None:
    rows = [row | {"name": "<script>alert(1)</script>"} for row in run.rows]
    *_, file = write_measures(tmp_path / "report", ScoredRun("<b>", run.insertions, rows), ["a & b"])
    text = file.read_text("utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "<b>" not in text
