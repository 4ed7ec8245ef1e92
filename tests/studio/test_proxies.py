"""Proxies and crops: upright, in the right colours, exact at full size; the picture stays as it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.files import file_digest
from ldm.data.picture import Picture, read_rgb
from ldm.data.picture_write import write_picture
from ldm.studio.proxies import RAW_COPIES, Proxies
from tests.fixtures.profiles import PROFILES, in_profile


@pytest.fixture
def proxies(tmp_path: Path) -> Proxies:
    (tmp_path / "cache").mkdir()
    return Proxies(tmp_path / "cache")


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x], axis=2).astype(np.uint8)


def pixels_of(data: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(data if isinstance(data, Path) else BytesIO(data)))


def test_a_turned_jpeg_is_shown_upright(proxies: Proxies, tmp_path: Path) -> None:
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned clockwise
    Image.fromarray(np.rot90(gradient(900, 600)).copy()).save(file, exif=exif, icc_profile=b"profile")
    before = file.read_bytes()
    made = proxies.proxy(file, "a", 256)
    with Image.open(made) as opened:
        assert opened.size == (171, 256) and opened.info["icc_profile"] == b"profile"
    small = pixels_of(made).astype(int)
    assert small[10, -10, 0] > 200 > small[10, 10, 0] + 100 and small[-10, 10, 1] > 200
    tile = pixels_of(proxies.tile(file, "a", (500, 0, 600, 50), 1024)).astype(int)
    assert tile.shape == (50, 100, 3) and tile[:, -10:, 0].min() > 230 and tile[..., 1].max() < 30
    assert file.read_bytes() == before


def test_previews_show_the_colours_of_the_file(proxies: Proxies, tmp_path: Path) -> None:
    stored = in_profile(np.full((300, 400, 3), (200, 90, 80), np.uint8), PROFILES["p3"])
    for name in ("a.png", "a.jpg"):
        Image.fromarray(stored).save(tmp_path / name, quality=100, icc_profile=PROFILES["p3"])
        tile = tmp_path / "tile.png"
        tile.write_bytes(proxies.tile(tmp_path / name, name, (0, 0, 99, 99), 64))
        for file in (proxies.proxy(tmp_path / name, name, 256), tile):
            assert np.abs(read_rgb(file).astype(int) - (200, 90, 80)).max() <= 4


def test_a_crop_has_the_very_pixels(proxies: Proxies, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    assert (pixels_of(proxies.tile(file, "a", (20, 10, 70, 60), 1024)) == pixels[10:60, 20:70]).all()
    assert pixels_of(proxies.tile(file, "a", (60, 50, 500, 500), 1024)).shape == (30, 30, 3)
    assert pixels_of(proxies.tile(file, "a", (0, 0, 90, 80), 45)).shape == (40, 45, 3)
    for box in ((90, 0, 99, 9), (5, 5, 5, 9), (-9, -9, 0, 0)):
        with pytest.raises(ValueError, match="holds no pixel"):
            proxies.tile(file, "a", box, 64)


def test_sixteen_bits_and_transparency(proxies: Proxies, tmp_path: Path) -> None:
    deep = np.zeros((40, 40, 4), np.uint16)
    deep[..., 0], deep[:, 20:, 3] = 65535, 65535
    write_picture(tmp_path / "a.png", Picture(deep))
    found = pixels_of(proxies.tile(tmp_path / "a.png", "a", (0, 0, 40, 40), 64))
    assert (found[:, 20:] == (255, 0, 0)).all() and (found[:, :20] == 128).all()


def test_raw_copies_do_not_fill_the_disk(proxies: Proxies, tmp_path: Path) -> None:
    """A person's arrays in a folder of this name stay."""
    np.save(proxies.folder / "features.npy", np.ones(3))
    for i in range(RAW_COPIES + 2):
        file = tmp_path / f"{i}.png"
        Image.fromarray(gradient(8, 8 + i)).save(file)
        proxies.tile(file, file_digest(file), (0, 0, 8, 8), 8)
    assert (proxies.folder / "features.npy").is_file()
    assert len(list(proxies.folder.glob("*.npy"))) == 1 + RAW_COPIES
