"""Benchmarks => objects, and the sites where they are to be inserted; all is checked before any work.

Three layouts are read:
- scenes with ground truth: `objects/<name>/` (object folders) and `scenes/<name>/` as SCENE_FILES says,
  optionally with `posed/<name>/`, the object in the pose of the truth (`ldm.evaluation.posed`);
- photos: `insertions/cases.json`, whose objects are `id_image/<name>/`;
- InsertSet: an object folder or a folder of them. Each object goes into every background of a test bench
  (`image/NNNN_img.png`, `mask/NNNN_mask.png`, optionally a list file), one for all objects or one for each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ldm.batch.manifest import bench_backgrounds
from ldm.batch.work_item import MaskedBackground
from ldm.data.boxes import read_box_file
from ldm.data.files import natural_key
from ldm.data.insertset import InsertSet, load_insertset
from ldm.data.picture import Picture, read_picture
from ldm.evaluation.posed import Posed, read_posed
from ldm.insertion.mask_input import MaskOptions, read_mask
from ldm.insertion.roi import AROUND, CropContext, Roi, plan_rois

ObjectFolders = dict[str, Path]  # by the object's name
PHOTO_CASES = "insertions/cases.json"
SCENE_FILES = (
    "background.png, truth.png, mask.png (white: inpaint here), object_mask.png (white: the object), "
    'roi.txt (x0 y0 x1 y1, a square around the mask) and meta.json ({"object": name, ...})'
)


@dataclass(frozen=True)
class Site:
    """A place for an object, by a unique name. `rois` are what is inpainted and scored; none: planned."""

    name: str
    object: str
    masked: MaskedBackground
    rois: tuple[Roi, ...] = ()
    truth: Path | None = None
    object_mask: Path | None = None
    posed: Posed | None = None

    def files(self) -> list[Path]:
        """The pictures that its result and its scores depend on."""
        posed = None if self.posed is None else self.posed.picture
        found = (self.masked.background, self.masked.mask, self.truth, self.object_mask, posed)
        return [path for path in found if path is not None]

    def read(self, options: MaskOptions | None = None, context: CropContext = AROUND) -> SiteImages:
        """Its images; FileNotFoundError or ValueError in one line if one is missing or does not fit."""
        background, mask = self.masked.read(options or MaskOptions())
        return SiteImages(
            background=background,
            mask=mask,
            rois=self.rois or tuple(plan_rois(mask, context)),
            truth=None if self.truth is None else read_alike(background, self.truth),
            object_mask=None if self.object_mask is None else read_mask(self.object_mask, background.size),
            posed=self.posed,
        )


@dataclass(frozen=True, eq=False)
class SiteImages:
    """A site's images, all of one size and depth; masks bool [H,W]: where to inpaint, where the object is."""

    background: Picture
    mask: np.ndarray
    rois: tuple[Roi, ...]
    truth: Picture | None = None
    object_mask: np.ndarray | None = None
    posed: Posed | None = None


@dataclass(frozen=True)
class Benchmark:
    """A named set of sites, and the objects that are inserted there."""

    name: str
    objects: Mapping[str, InsertSet]
    sites: tuple[Site, ...]

    def sites_of(self, name: str) -> list[Site]:
        """The sites of one object."""
        return [site for site in self.sites if site.object == name]

    def first(self, objects: int, sites: int) -> Benchmark:
        """Its first objects, and the first sites of each."""
        known = dict(list(self.objects.items())[:objects])
        return replace(
            self, objects=known, sites=tuple(x for name in known for x in self.sites_of(name)[:sites])
        )


def load_benchmark(
    root: Path,
    backgrounds: Path | None = None,
    objects: Collection[str] = (),
    sites: Collection[str] = (),
) -> Benchmark:
    """Read and check a benchmark, or the chosen objects and sites of it; () stands for all.

    `backgrounds` is the test bench for object folders. Pictures and boxes are checked of what is chosen;
    ValueError or FileNotFoundError names the first fault.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give a benchmark or object folders")
    if (root / "scenes").is_dir():
        folders, found = _scenes(root)
    elif (root / PHOTO_CASES).is_file():
        folders, found = _photos(root)
    else:
        folders, found = _insertset(root, backgrounds, objects)
    names = _choose(sorted(folders, key=natural_key), objects, root)
    wanted = _choose([site.name for site in found], sites, root)
    kept = [site for name in names for site in found if site.object == name and site.name in wanted]
    if not kept:
        raise ValueError(f"{root}: no site has one of these objects: {', '.join(names)}; choose others")
    used = {name: load_insertset(folders[name]) for name in dict.fromkeys(site.object for site in kept)}
    checked = tuple(_checked(site) if site.truth else site for site in kept)
    return Benchmark(root.resolve().name, used, checked)


def read_alike(background: Picture, path: Path) -> Picture:
    """A picture of the background's size and depth; ValueError in one line if it is of others."""
    picture = read_picture(path)
    if picture.pixels.shape != background.pixels.shape or picture.pixels.dtype != background.pixels.dtype:
        raise ValueError(
            f"{path}: {_format(picture)}, the background {_format(background)}; both must be the same"
        )
    return picture


def _scenes(root: Path) -> tuple[ObjectFolders, list[Site]]:
    """Scenes with ground truth; their images are read by `_checked`."""
    objects = {name: root / "objects" / name for name in _folders(root / "objects")}
    folders = [root / "scenes" / name for name in _folders(root / "scenes")]
    sites = [
        Site(
            name=folder.name,
            object=_object_name(folder / "meta.json", objects),
            masked=MaskedBackground(folder / "background.png", folder / "mask.png"),
            truth=folder / "truth.png",
            object_mask=folder / "object_mask.png",
        )
        for folder in folders
    ]
    return objects, sites


def _checked(scene: Site) -> Site:
    """A scene with its square and its posed object; its images are read once to check them."""
    folder = scene.masked.background.parent
    roi = _square(folder / "roi.txt")
    images = scene.read()
    for name, mask in (("mask", images.mask), ("object_mask", images.object_mask)):
        assert mask is not None
        outside = mask.copy()
        outside[max(roi.y0, 0) : roi.y1, max(roi.x0, 0) : roi.x1] = False
        if outside.any():
            raise ValueError(f"{folder / 'roi.txt'}: leaves a part of {name}.png out; enlarge the square")
    posed = read_posed(folder.parents[1] / "posed" / folder.name, images.background.size)
    return replace(scene, rois=(roi,), posed=posed)


def _square(path: Path) -> Roi:
    roi = Roi(*(round(value) for value in read_box_file(path)))
    if roi.size[0] != roi.size[1] or roi.size[0] <= 0:
        raise ValueError(f"{path}: {roi.size[1]} x {roi.size[0]} px; expected a square x0 y0 x1 y1")
    return roi


def _object_name(path: Path, known: Collection[str]) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a scene has {SCENE_FILES}")
    try:
        name = json.loads(path.read_text("utf-8"))["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: names no object ({error!r}); expected {{"object": name, ...}}') from error
    if name not in known:
        raise ValueError(f"{path}: the object {name!r} is not in objects/; there are {', '.join(known)}")
    return name


def _photos(root: Path) -> tuple[ObjectFolders, list[Site]]:
    """Real objects in real photos; lines with objects from elsewhere are left out."""
    file = root / PHOTO_CASES
    try:
        rows = [row for row in json.loads(file.read_text("utf-8")) if row["object_from"] == "id_image"]
        sites = [
            Site(
                row["id"],
                row["object"],
                MaskedBackground(file.parent / row["background"], file.parent / row["mask"]),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a list of insertions ({error!r})") from error
    return {site.object: root / "id_image" / site.object for site in sites}, sites


def _insertset(
    root: Path, backgrounds: Path | None, chosen: Collection[str]
) -> tuple[ObjectFolders, list[Site]]:
    """One object folder, or a folder of them: each object goes into every background of its test bench.

    Sites are those of the chosen objects; () stands for all.
    """
    alone = (root / "data").is_dir()
    folders = (
        [root]
        if alone
        else [path for path in sorted(root.iterdir()) if (path / "data").is_dir() and path.name[0] != "."]
    )
    if not folders:
        raise ValueError(
            f"{root}: neither a benchmark (scenes/, objects/), nor an object folder (data/, bbox/, "
            "test.jpg) or a folder of those"
        )
    if backgrounds is None:
        raise ValueError(f"{root}: object folders need a test bench: --backgrounds FOLDER (image/, mask/)")
    objects = {folder.resolve().name: folder for folder in folders}
    sites = [
        Site(f"{name}/{masked.name}", name, masked)  # every object goes into backgrounds of the same names
        for name in objects
        if not chosen or name in chosen
        for masked in bench_backgrounds(_test_bench(name, backgrounds))
    ]
    return objects, sites


def _test_bench(name: str, backgrounds: Path) -> Path:
    """The test bench of an object: its own, `<backgrounds>/<name>`, else the one for all."""
    own = backgrounds / name
    if (own / "image").is_dir():
        return own
    if not (backgrounds / "image").is_dir():
        raise FileNotFoundError(
            f"{backgrounds / 'image'}: no such folder, nor {own / 'image'}; a test bench has image/ and "
            "mask/, for all objects or one for each"
        )
    return backgrounds


def _folders(folder: Path) -> list[str]:
    """The names of the folders inside one, in natural order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a benchmark with scenes/ and objects/")
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(names, key=natural_key)


def _choose(names: Sequence[str], choice: Collection[str], where: Path) -> list[str]:
    """The chosen ones of these names, in their order; ValueError for a name that is not there."""
    if unknown := [name for name in choice if name not in names]:
        raise ValueError(f"{where}: no {', '.join(unknown)}; there are {', '.join(names) or 'none'}")
    return [name for name in names if not choice or name in choice]


def _format(picture: Picture) -> str:
    height, width = picture.size
    return f"{width} x {height} px of {picture.pixels.shape[2]} channels, {picture.pixels.dtype}"
