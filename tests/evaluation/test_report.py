"""The table holds the means of the rows it is given; the sheet shows every picture in its place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.evaluation.benchmark import load_benchmark
from ldm.evaluation.methods import METHODS
from ldm.evaluation.metrics import bootstrap
from ldm.evaluation.report import TILE, paired, table, write_report
from ldm.evaluation.tables import cell
from ldm.insertion.contact_sheet import CAPTION, MARGIN
from tests.fixtures.bench import write_bench


def row(method: str, name: str, **scores: float) -> dict:
    """All scores 0.5 but those that are given."""
    names = ("identity", "psnr_object", "ssim_object", "seam", "seconds", "outside")
    whole = {f"v2/{key}": value for key, value in (dict.fromkeys(names, 0.5) | scores).items()}
    return {"method": method, "name": name, "object": "apple", "model": "m", "scores": whole}


def test_a_cell_is_mean_and_interval() -> None:
    values = [0.1, 0.4, 0.7, 0.2]
    rows = [row("flat", str(i), identity=value, seconds=value) for i, value in enumerate(values)]
    low, high = bootstrap(values)
    assert cell(rows, "v2/identity") == f"0.350 [{low:.3f}, {high:.3f}]" and low < 0.35 < high
    assert cell(rows, "v2/seconds") == "0.35"
    assert cell(rows, "v2/learning_seconds") == "–"


def test_the_table_has_a_line_for_each_method_in_order_and_the_worst_outside() -> None:
    rows = [row("ceiling", "a"), row("flat", "a", outside=0), row("flat", "b", outside=3)]
    lines = table(list(METHODS.values()), rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| reference pasted flat into the mask",
        "| ceiling: truth through the VAE",
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].split(" | ")[1] == "2" and lines[2].endswith("| 3 |")


def test_two_methods_are_compared_site_by_site() -> None:
    rows = [
        row(m, str(i), identity=0.2 * i + shift)
        for m, shift in (("flat", 0), ("ceiling", 0.1))
        for i in (1, 2)
    ]
    [sentence] = paired([*rows, row("flat", "alone", identity=9)], "flat", "ceiling")
    assert "(2): +0.100 [+0.100, +0.100]" in sentence
    assert paired(rows[:2], "flat", "ceiling") == []


@pytest.fixture
def rows(tmp_path: Path) -> list[dict]:
    """Three results with their pictures."""
    found = []
    for shade, (method, name) in enumerate([("flat", "s1"), ("ceiling", "s1"), ("ceiling", "s2")], start=1):
        file = tmp_path / f"{method}_{name}.png"
        Image.fromarray(np.full((80, 96, 3), 40 * shade, np.uint8)).save(file)
        found.append(row(method, name, identity=0.3 * shade) | {"result": str(file)})
    return found


def test_the_report_shows_background_truth_and_every_result(tmp_path: Path, rows: list[dict]) -> None:
    benchmark = load_benchmark(write_bench(tmp_path / "bench"), sites=["s1", "s2"])
    methods = [METHODS["flat"], METHODS["ceiling"]]
    text, sheet_file = write_report(tmp_path, benchmark, methods, rows, "By hand.")
    written = text.read_text("utf-8")
    assert "2 sites of 2 objects" in written and "By hand." in written
    assert "| ceiling: truth through the VAE | 2 |" in written and "0.750 [0.600, 0.900]" in written
    sheet, step = np.asarray(Image.open(sheet_file)), TILE + MARGIN
    centres = [
        [sheet[CAPTION + MARGIN + y * step + TILE // 2, MARGIN + x * step + TILE // 2] for x in range(4)]
        for y in range(2)
    ]
    assert sheet.shape[:2] == (CAPTION + MARGIN + 2 * step, MARGIN + 4 * step)
    assert centres[0][2].tolist() == [40] * 3 and centres[0][3].tolist() == [80] * 3
    assert centres[1][2].tolist() == [255] * 3 and centres[1][3].tolist() == [120] * 3  # flat, s2: none yet
    assert centres[0][1][0] > centres[0][1][2] + 30 and centres[1][1][2] > centres[1][1][0] + 30  # red, blue
