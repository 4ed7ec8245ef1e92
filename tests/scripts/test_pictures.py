"""The README's pictures are drawn by one command."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.insertion.blend import BLENDS
from ldm.insertion.sheet import MARGIN, TILE
from scripts import pictures
from tests.fixtures.small import written


def test_one_background_gives_both_pictures(tmp_path: Path) -> None:
    config, toy = written(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    common = ["--config", str(config), "--device", "cpu", "--steps", "2", "--outdir", str(tmp_path / "out")]
    marked = ["--example_img", str(tmp_path / "b.png"), "--box", "40", "30", "80", "60"]
    pictures.main([*common, *marked, "--reference", str(toy / "test.png")])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["scene.png", "seams.png"]
    assert Image.open(tmp_path / "out" / "scene.png").size == (240, 90)
    columns = 1 + len(BLENDS)
    assert Image.open(tmp_path / "out" / "seams.png").width == MARGIN + columns * (TILE + MARGIN)
    with pytest.raises(ValueError, match="give --example_img and --mask"):
        pictures.main([*common, "--scene", "s.yaml"])
