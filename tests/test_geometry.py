"""Boxes, polygons, masks and regions count in the picture that a viewer shows, in every kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.batch.manifest import read_manifest
from ldm.batch.work_item import MaskedBackground, WorkItem, roi_in
from ldm.data.exif import upright_pixels
from ldm.data.insertset import load_insertset
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_picture, read_rgb
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi
from ldm.prepare.photo_files import known_beside
from ldm.scenes.scene_file import read_scene

WIDTH, HEIGHT = 80, 60
BOX = (24, 8, 56, 40)
TEXT = "24 8 56 40"
CORNERS = [[24, 8], [56, 8], [56, 40], [24, 40]]
PER_CENT = " ".join(f"{100 * v / n}%" for v, n in zip(BOX, (WIDTH, HEIGHT) * 2, strict=True))


@pytest.fixture(params=range(1, 9))
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An object folder, a photo and a background, white in BOX as shown, stored as EXIF turns them back."""
    shown = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    shown[8:40, 24:56] = 255
    exif = Image.Exif()
    exif[0x0112] = request.param
    stored = Image.fromarray(upright_pixels(shown, {6: 8, 8: 6}.get(request.param, request.param)))
    for name in ("data/1.png", "reg_data/1.jpg", "mask/1.png", "test.png", "b.webp", "photo.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        stored.save(tmp_path / name, exif=exif)
    for name in ("photo_mask.png", "m.png"):  # without EXIF, as shown
        Image.fromarray(shown).save(tmp_path / name)
    for name, text in (
        ("bbox/1.txt", TEXT),
        ("reg_bbox/1.txt", PER_CENT),
        ("photo.txt", TEXT),
        ("b.txt", TEXT),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def white(levels: np.ndarray) -> tuple[int, ...]:
    """The box of what is white, of which all is white."""
    rows, columns = (np.flatnonzero((levels > 127).any(axis=axis)) for axis in (1, 0))
    assert (levels > 127).sum() == len(rows) * len(columns)
    return int(columns[0]), int(rows[0]), int(columns[-1] + 1), int(rows[-1] + 1)


@pytest.mark.filterwarnings("ignore:.*(EXIF turns|shares)")
def test_an_object_folder(folder: Path) -> None:
    found = load_insertset(folder)
    [few_shot], [same_category] = found.few_shot, found.same_category
    assert few_shot.boxes == (BOX,) and same_category.boxes == (pytest.approx(BOX),)
    assert few_shot.mask is not None and white(read_silhouette(few_shot.mask)) == BOX
    assert white(read_rgb(few_shot.image)[..., 0]) == BOX
    known = known_beside(folder / "photo.tif")
    assert known.silhouette is not None and known.box == BOX == white(known.silhouette)


@pytest.mark.filterwarnings("ignore:.*shares")
def test_manifests_scenes_and_regions(folder: Path) -> None:
    lines = [("box", TEXT), ("box", PER_CENT), ("mask", "m.png"), ("mask", "mask/1.png"), ("mask", "b.txt")]
    table = [json.dumps({"background": "b.webp", where: value}) for where, value in lines]
    (folder / "w.jsonl").write_text("\n".join(table))
    like = WorkItem(MaskedBackground(Path()), ObjectSource(reference=folder / "test.png"), (1,))
    shares = [[x / WIDTH, y / HEIGHT] for x, y in CORNERS]
    regions = [{"box": BOX}, {"polygon": CORNERS}, {"polygon": shares}, {"box": PER_CENT},
               {"mask": "m.png"}]  # fmt: skip
    placements = [{"reference": "test.png", **region} for region in regions]
    (folder / "s.yaml").write_text(json.dumps({"background": "b.webp", "placements": placements}))
    items = read_manifest(folder / "w.jsonl", like)
    items += [placement.item for placement in read_scene(folder / "s.yaml").placements]
    assert len(items) == 10
    for item in items:
        picture, mask = item.masked.read()
        assert white(mask * 255) == BOX
        assert white(picture.pixels[..., 0]) == BOX
    assert roi_in((20, 4, 60, 44), read_picture(folder / "b.webp").frame) == Roi(20, 4, 60, 44)
