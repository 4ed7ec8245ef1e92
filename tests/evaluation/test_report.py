"""The report: rows as they are, tables of them, and a sheet that shows every picture in its place."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.batch.contact_sheet import CAPTION, MARGIN
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation import report
from ldm.evaluation.collect import collect
from ldm.evaluation.metrics import bootstrap
from ldm.evaluation.report import TILE, ScoredRun, cell, comparison_table, write_report
from ldm.evaluation.results import row_of
from tests.evaluation.test_collect import bench_results
from tests.fixtures.bench import write_bench

SETS = {"flat": {"paper/clip_fid": 12.345}, "ceiling": {"paper/clip_fid": 3}}


@pytest.fixture
def run(tmp_path: Path) -> ScoredRun:
    """flat s1, s2, ceiling s1, s2: grey results, each a little lighter than the one before."""
    insertions = collect(bench_results(tmp_path / "out", write_bench(tmp_path / "bench")))
    for shade, insertion in enumerate(insertions, start=1):
        write_picture(insertion.result, Picture(np.full((80, 96, 3), 40 * shade, np.uint8)))
    scores = [0.8, 0.2, 0.5, 0.6]
    rows = [row_of(x, {"v2/identity": s, "v2/seam": 1}, {}) for x, s in zip(insertions, scores, strict=True)]
    return ScoredRun("out", insertions, rows, SETS)


def test_a_cell_is_mean_and_interval() -> None:
    values = [0.1, 0.4, 0.7, 0.2]
    rows = [{"scores": {"v2/identity": x, "v2/seconds": x}} for x in values]
    low, high = bootstrap(values)
    assert cell(rows, "v2/identity") == f"0.350 [{low:.3f}, {high:.3f}]" and low < 0.35 < high
    assert cell(rows, "v2/seconds") == "0.35"
    assert cell(rows, "v2/learning_seconds") == "–"


def test_lines_and_tables_say_what_was_measured(tmp_path: Path, run: ScoredRun) -> None:
    lines, text, _ = write_report(tmp_path / "report", run, ["Networks: X 123."])
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert rows == run.rows and rows[1]["scores"] == {"v2/identity": 0.2, "v2/seam": 1}
    assert rows[0]["model"] == "base2" and rows[0]["views"] == 2
    said = text.read_text("utf-8")
    assert "| flat | base2 | 2 | 0.500 [0.200, 0.800] |" in said and "Networks: X 123." in said
    assert "## By object" in said and "| flat | brick | base2 | 1 | 0.200 [0.200, 0.200] |" in said
    assert (
        "paper: CLIP-FID |" in said
        and "| flat | base2 | 2 | 0.500 [0.200, 0.800] | 1.00 [1.00, 1.00] | 12.35 |" in said
    )


def test_the_sheet_shows_every_picture_the_worst_first(tmp_path: Path, run: ScoredRun) -> None:
    *_, file = write_report(tmp_path / "report", run, [])
    sheet, step = np.asarray(Image.open(file)), TILE + MARGIN
    assert sheet.shape[:2] == (CAPTION + MARGIN + 2 * step, MARGIN + 5 * step)
    middle = [
        [sheet[CAPTION + MARGIN + y * step + TILE // 2, MARGIN + x * step + TILE // 2] for x in range(5)]
        for y in range(2)
    ]
    assert [middle[0][x].tolist() for x in (3, 4)] == [[80] * 3, [160] * 3], "s2: 0.2 and 0.6"
    assert [middle[1][x].tolist() for x in (3, 4)] == [[40] * 3, [120] * 3], "s1: 0.8 and 0.5"
    assert middle[0][2][2] > middle[0][2][0] + 30 and middle[1][2][0] > middle[1][2][2] + 30  # blue, red
    assert middle[0][1].argmax() == 2 and middle[1][1].argmax() == 0, "the references"
    assert np.ptp(middle[0][0]) < 60


def test_two_runs_stand_side_by_side(tmp_path: Path, run: ScoredRun) -> None:
    half = [i for i, x in enumerate(run.insertions) if x.method == "flat"]
    flat = ScoredRun("out/flat", [run.insertions[i] for i in half], [run.rows[i] for i in half])
    _, text, file = write_report(tmp_path / "report", run, [], flat)
    said = text.read_text("utf-8")
    assert "ceiling against out/flat, paired by image" in said
    assert "| v2: identity, to the truth | 2 | 0.550 | 0.500 | +0.050 [-0.300, +0.400] | undecided |" in said
    sheet = np.asarray(Image.open(file))
    assert sheet.shape[1] == MARGIN + 6 * (TILE + MARGIN)
    other = sheet[CAPTION + MARGIN + TILE // 2, MARGIN + 5 * (TILE + MARGIN) + TILE // 2]
    assert other.tolist() == [80] * 3, "the other run's s2"


def test_a_sheet_that_is_not_of_a_report_is_not_replaced(tmp_path: Path, run: ScoredRun) -> None:
    sheet = tmp_path / "sheet.png"
    Image.new("RGB", (9, 9)).save(sheet)
    before = sheet.read_bytes()
    with pytest.raises(ValueError, match=r"sheet\.png is no sheet of a report and would be overwritten"):
        write_report(tmp_path, run, [])
    assert sheet.read_bytes() == before and [*tmp_path.glob("report.md"), *tmp_path.glob("*.jsonl")] == []


def test_a_sheet_holds_the_worst_rows_only(run: ScoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_ROWS", 1)
    unscored = [row | {"scores": {}} if row["name"] == "s2" else row for row in run.rows]
    sheet = report.result_sheet(replace(run, rows=unscored))
    assert sheet.shape[0] == CAPTION + MARGIN + TILE + MARGIN
    centre = sheet[CAPTION + MARGIN + TILE // 2, MARGIN + 3 * (TILE + MARGIN) + TILE // 2]
    assert centre.tolist() == [40] * 3, "what has no score comes last"


def test_the_comparison_weighs_objects_alike_and_counts_what_is_worse() -> None:
    def row(method: str, name: str, of: str, psnr: float) -> dict:
        return {"method": method, "name": name, "object": of, "scores": {"v2/psnr_object": psnr}}

    rows = [row("plain", name, of, 10.0) for name, of in (("1", "cup"), ("2", "cup"), ("3", "car"))]
    rows += [row("learnt", "1", "cup", 12.0), row("learnt", "2", "cup", 8.0), row("learnt", "3", "car", 13.0)]
    head, line = comparison_table(rows, {"plain": (), "learnt": ("plain", "absent")})
    assert line[:3] == ["learnt", "plain", "3"] and head[3].startswith("v2: PSNR object")
    assert line[3].startswith("+1.50 [") and line[4] == "33 %"  # 0 of the cups, 3 of the car
