"""The best result looks like its reference where the mask is, and shows no seam."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldm.batch.best_of import BestOfSeeds, scores
from ldm.batch.results_log import FILE, ResultsLog, rows
from ldm.batch.runner import make_item
from ldm.data.picture import Picture
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import Roi
from tests.fixtures.stub import Stub, items, options

WHITE = torch.ones(3, 8, 8)


def closeness(image: torch.Tensor, reference: torch.Tensor) -> float:
    assert len(image) == len(reference) == 3
    return 1 - float((image.mean() - reference.mean()).abs()) / 2


def result(seed: int, level: int, seam: float = 1.0) -> Any:
    """A black picture with a box of one grey level where the mask is."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[2:6, 4:8] = level
    return SimpleNamespace(picture=Picture(pixels), record={"seed": seed, "regions": [{"seam": seam}]})


def ranked(folder: Path, results: list[Any], reference: torch.Tensor = WHITE) -> list[int]:
    [item] = items(folder / "files", 1)
    mask = np.zeros((20, 40), bool)
    mask[2:6, 4:8] = True
    choose = BestOfSeeds(closeness, lambda source: reference[None], folder / "sheets")
    return [r.record["seed"] for r in choose(item, InsertRequest(mask, [Roi(0, 0, 12, 12)], ()), results)]


def test_only_what_lies_in_the_mask_is_compared(tmp_path: Path) -> None:
    results = [result(1, 10), result(2, 255), result(3, 128)]
    assert ranked(tmp_path, results, torch.cat([WHITE, WHITE[:1] * 0])) == [2, 3, 1], "a cut-out, over grey"
    assert ranked(tmp_path, results) == [2, 3, 1]
    assert results[1].record["scores"]["identity"] == 1
    assert [c["seed"] for c in results[1].record["candidates"]] == [2, 3, 1]
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "0.png"))
    assert sheet.shape[1] > 3 * 256, "all candidates are drawn"


def test_a_seam_outweighs_a_little_identity(tmp_path: Path) -> None:
    assert ranked(tmp_path, [result(1, 255, seam=4), result(2, 240)]) == [2, 1]
    assert ranked(tmp_path, [result(1, 255, seam=1.1), result(2, 200)]) == [1, 2]
    assert scores(0.5, 0.3)["score"] == 0.5, "smoother than its surroundings is no merit"


def test_the_best_is_written_once_and_counts_as_the_result_of_its_item(tmp_path: Path) -> None:
    todo, out, stub = [], tmp_path / "out", Stub()
    for item in items(tmp_path, 2, seeds=(5, 6, 7)):
        todo.append(replace(item, best=True))
    how = replace(options(), choose=BestOfSeeds(closeness, lambda source: WHITE[None], out / "candidates"))
    for _ in range(2):
        log = ResultsLog(out)
        outcomes = [make_item(item, stub, how, log) for item in todo]
    assert stub.made == [(5, 6, 7)] * 2 and all(not outcome.made for outcome in outcomes)
    assert sorted(file.name for file in out.glob("*.png")) == ["0.png", "1.png"]
    for row in rows(out / FILE):
        assert row["seed"] in (5, 6, 7) and row["best_of"] == 3 and len(row["candidates"]) == 3
