"""Charts are PNG files, or one line that says what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.evaluation.charts import draw_lines
from ldm.validation.score import ValidationScore, draw_scores


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_the_chart_of_a_run_shows_its_scores(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, last in (("a", 0.3), ("b", 0.4)):
        scores = [ValidationScore(step, x, 1.0, 0.0, (x, x + 0.1)) for step, x in ((0, 0.2), (10, last))]
        draw_scores(tmp_path / "charts" / f"{name}.png", scores, 10)
    a, b = (pixels(tmp_path / "charts" / f"{name}.png") for name in "ab")
    assert a.shape == b.shape and (a != b).any() and len(np.unique(a.reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("log", [False, True])
def test_lines_have_intervals(tmp_path: Path, log: bool) -> None:
    pytest.importorskip("matplotlib")
    for name, reach in (("narrow", 0.01), ("wide", 0.2)):
        points = [(x, 0.5, 0.5 - reach, 0.5 + reach) for x in (4, 1, 2)]
        draw_lines(
            tmp_path / f"{name}.png", {"tokens": points, "linear": points[:2]}, x="n", y="identity", log=log
        )
    assert (pixels(tmp_path / "narrow.png") != pixels(tmp_path / "wide.png")).any()


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ModuleNotFoundError, match=r"\.\[charts\]"):
        draw_lines(tmp_path / "a.png", {"x": [(1, 1, 1, 1)]}, x="x", y="y")
    assert not list(tmp_path.iterdir())
