"""A bench folder like insertbench => checked scenes with ground truth, and the scores of a result.

In: `objects/<name>/` (InsertSet folders) and `scenes/<name>/` as `LAYOUT` says. Out: a `Bench`, or one error
that lists everything wrong with what was chosen of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ldm.data.insertset import InsertSet, load_insertset, natural_key
from ldm.data.picture import Picture, read_picture
from ldm.evaluation.insertion import read_like
from ldm.evaluation.metrics import box_of, identity, psnr, ssim
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.mask_shapes import read_mask, read_roi_file
from ldm.insertion.paste import cut_region
from ldm.insertion.result_checks import difference_outside, seam_ratio
from ldm.insertion.roi import Roi, crop

T = TypeVar("T")
PROTOCOL = "v2"  # numbers compare only inside one protocol: docs/evaluation_protocols.md
LAYOUT = (
    "background.png, truth.png, mask.png (white: inpaint here), object_mask.png (white: the object), "
    'roi.txt (x0 y0 x1 y1, a square around the mask) and meta.json ({"object": name, ...})'
)


@dataclass(frozen=True)
class Scene:
    """One insertion case: which object goes where; `roi` is the square that is inpainted and scored."""

    folder: Path
    object: str
    roi: Roi

    @property
    def name(self) -> str:
        return self.folder.name

    def read(self) -> Views:
        """Its pictures; ValueError or FileNotFoundError in one line for whatever does not fit."""
        background = read_picture(self.folder / "background.png")
        truth = read_like(background, self.folder / "truth.png")
        masks = (read_mask(self.folder / f"{name}.png", truth.size) for name in ("mask", "object_mask"))
        return Views(background, truth, *masks)


@dataclass(frozen=True, eq=False)
class Views:
    """A scene's pictures, all of one size; masks bool [H,W]: where to inpaint, where the object truly is."""

    background: Picture
    truth: Picture
    mask: np.ndarray
    object_mask: np.ndarray


@dataclass(frozen=True)
class Bench:
    """Scenes, and the objects that go into them."""

    root: Path
    objects: Mapping[str, InsertSet]
    scenes: tuple[Scene, ...]

    def scenes_of(self, name: str) -> list[Scene]:
        """The scenes of one object."""
        return [scene for scene in self.scenes if scene.object == name]


def load_bench(root: Path, objects: Collection[str] = (), scenes: Collection[str] = ()) -> Bench:
    """Read and check a bench, or what is chosen of it by name; ValueError names every fault, one a line."""
    root = Path(root)
    for needed in (root / "scenes", root / "objects"):
        if not needed.is_dir():
            raise FileNotFoundError(f"{needed}: no such folder; expected a bench with scenes/ and objects/")
    folders = _chosen(root / "scenes", scenes)
    known = [path.name for path in _chosen(root / "objects", objects)]
    faults: list[str] = []
    named = {folder: _tried(_object_name, folder / "meta.json", faults) for folder in folders}
    wanted = {folder: name for folder, name in named.items() if name in known}
    found = [_tried(_load_scene, folder, faults) for folder in wanted]
    used = [name for name in known if name in wanted.values()]
    sets = {name: _tried(load_insertset, root / "objects" / name, faults) for name in used}
    if faults:
        raise ValueError("\n  ".join([f"{root}: mend this bench in {len(faults)} places", *faults]))
    if not found:
        raise ValueError(f"{root}: no scene has one of these objects: {', '.join(known)}; choose others")
    return Bench(root, {k: v for k, v in sets.items() if v}, tuple(scene for scene in found if scene))


def score(features: ImageNetFeatures, picture: Picture, scene: Scene, views: Views) -> dict[str, float]:
    """The numbers of protocol v2 for a result: against the truth inside, against the background outside.

    `_object` is inside the object's true silhouette, `_region` inside the whole inpainted mask.
    """
    roi, inside, silhouette = scene.roi, crop(views.mask, scene.roi), crop(views.object_mask, scene.roi)
    image, truth = cut_region(picture, roi), cut_region(views.truth, roi)
    scores = {"identity": identity(features, image, truth, box_of(silhouette))}
    for name, where in (("object", silhouette), ("region", inside)):
        scores[f"psnr_{name}"] = psnr(image, truth, where)
        scores[f"ssim_{name}"] = ssim(image, truth, where)
    scores["seam"] = seam_ratio(image, inside)
    scores["outside"] = difference_outside(picture.pixels, views.background.pixels, views.mask)
    return {name: round(value, 5) for name, value in scores.items()}


def _chosen(folder: Path, names: Collection[str]) -> list[Path]:
    """The folders of these names in a folder, or all; in natural order."""
    there = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name)
    )
    if unknown := [name for name in names if name not in {path.name for path in there}]:
        known = ", ".join(path.name for path in there)
        raise ValueError(f"{folder}: no {', '.join(unknown)}; there are {known or 'none'}")
    return [path for path in there if not names or path.name in names]


def _tried(read: Callable[[Path], T], path: Path, faults: list[str]) -> T | None:
    """What `read` makes of a path; None, and a fault, if the user has to mend it."""
    try:
        return read(path)
    except (ValueError, FileNotFoundError) as error:
        faults.append(str(error))
        return None


def _load_scene(folder: Path) -> Scene:
    """One scene, its pictures read once to check them."""
    scene = Scene(folder, _object_name(folder / "meta.json"), _roi(folder / "roi.txt"))
    views = scene.read()
    for name, mask in (("mask", views.mask), ("object_mask", views.object_mask)):
        inside = np.zeros_like(mask)
        inside[max(scene.roi.y0, 0) : scene.roi.y1, max(scene.roi.x0, 0) : scene.roi.x1] = True
        if (mask & ~inside).any():
            raise ValueError(f"{folder / 'roi.txt'}: leaves a part of {name}.png out; enlarge the square")
    return scene


def _roi(path: Path) -> Roi:
    roi = Roi(*(round(value) for value in read_roi_file(path)))
    if roi.size[0] != roi.size[1] or min(roi.size) <= 0:
        raise ValueError(f"{path}: {roi.size[1]} x {roi.size[0]} px; expected a square x0 y0 x1 y1")
    return roi


def _object_name(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a scene has {LAYOUT}")
    try:
        name = json.loads(path.read_text("utf-8"))["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: names no object ({error!r}); expected {{"object": name, ...}}') from error
    folder = path.parents[2] / "objects"
    if not isinstance(name, str) or not (folder / name).is_dir():
        there = ", ".join(sorted(inside.name for inside in folder.iterdir()))
        raise ValueError(f"{path}: the object {name!r} is no folder of {folder}; there are {there or 'none'}")
    return name
