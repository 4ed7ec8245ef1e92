"""One zip of WebP files with all pictures for the training of a base => uint8 tensors in memory.

`photos/<id>`, `silhouettes/<id>` (the object in that photo; optional), and, with alpha, `cutouts/<id>`,
`multiview/<object>/<view>`, `relit/<id>/{background,truth,mask,posed_0,posed_1,view_0 ...}` (posed, views).
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.data.files import atomic_file
from ldm.data.picture import read_rgb

LAYERS = re.compile(r"cutouts/|multiview/|relit/\w+/(posed|view)_")  # pictures with alpha
POSED, VIEWS = 2, 3  # cut-outs of a relit scene's object: in its pose in another light, of other sides
DARKEST = 0.12  # relit scenes whose object is darker than this share of its cut-out are left out: back-lit
WHOLE = 0.9  # overlap of the two silhouettes of a relit object: less, and something stands in front of it

T = TypeVar("T")


@dataclass(frozen=True)
class Relit:
    """A rendered scene without and with an object, uint8 [3,H,W]; mask [1,H,W] (255 = object).

    `posed` [4,H,W]: the object in the same pose and frame, in other lights; `views` [4,h,w]: other views.
    """

    name: str
    background: Tensor
    truth: Tensor
    mask: Tensor
    posed: list[Tensor]
    views: list[Tensor]


@dataclass(frozen=True)
class Pack:
    """Decoded pictures, uint8: photos [3,H,W], cut-outs [4,h,w], the views of every object, scenes.

    `silhouettes`: for each photo that of the object in it, [1,H,W], black if there is none; None: not known.
    """

    photos: list[Tensor]
    cutouts: list[Tensor]
    multiview: dict[str, list[Tensor]]
    relit: list[Relit] = field(default_factory=list)
    silhouettes: list[Tensor | None] = field(default_factory=list)

    def split(self, photos: int, relit: int) -> tuple[Pack, Pack]:
        """=> the pack without so many photos, evenly spread, and every k-th relit scene; one with these."""
        step = max(2, len(self.photos) // photos)
        parts = zip(
            _every(self.photos, step), _every(self.silhouettes, step), _every(self.relit, relit), strict=True
        )
        trained, held_out = (
            replace(self, photos=own, silhouettes=silhouettes, relit=scenes)
            for own, silhouettes, scenes in parts
        )
        return trained, held_out

    def split_layers(self, every: int = 25) -> tuple[Pack, Pack]:
        """=> the pack without every k-th cut-out and object of many views, and one of only these."""
        parts = zip(_every(self.cutouts, every), _every(list(self.multiview), every), strict=True)
        trained, held_out = (
            replace(self, cutouts=cutouts, multiview={name: self.multiview[name] for name in names})
            for cutouts, names in parts
        )
        return trained, held_out


def _every(items: list[T], k: int) -> tuple[list[T], list[T]]:
    """=> all but every k-th item, and every k-th."""
    return [item for i, item in enumerate(items) if i % k], items[::k]


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(name in the pack, file) of every picture below a folder laid out as `photos/` + `insertbench/`."""
    for file in sorted((root / "photos/backgrounds").glob("*.jpg")):
        yield f"photos/{file.stem}", file
    for file in sorted((root / "photos/silhouettes").glob("*.png")):
        yield f"silhouettes/{file.stem}", file
    for file in sorted((root / "photos/cutouts").glob("*.webp")):
        yield f"cutouts/{file.stem}", file
    for file in sorted((root / "insertbench/multiview").glob("*/*.webp")):
        yield f"multiview/{file.parent.name}/{file.stem}", file
    for name in _usable_relit(root / "insertbench/relit"):
        cut_outs = [*(f"posed_{i}.webp" for i in range(POSED)), *(f"view_{i}.webp" for i in range(VIEWS))]
        for part in ("background.webp", "truth.webp", "mask.png", *cut_outs):
            yield f"relit/{name}/{Path(part).stem}", root / "insertbench/relit" / name / part


def _usable_relit(folder: Path) -> list[str]:
    """The names of the relit scenes that can be learnt from; none without the folder."""
    if not (folder / "index.json").is_file():
        return []
    scenes = json.loads((folder / "index.json").read_text())
    return [x["id"] for x in scenes if x["brightness_ratio"] >= DARKEST and x["overlap"] >= WHOLE]


def _webp(file: Path, short_side: int, quality: int) -> bytes:
    with Image.open(file) as opened:
        profiled = "icc_profile" in opened.info
        if opened.format == "WEBP" and min(opened.size) <= short_side and not profiled:
            return file.read_bytes()  # already what the pack holds
        mode = "RGBA" if opened.has_transparency_data else "RGB"
        picture = opened if opened.mode == "L" else opened.convert(mode)
        if profiled and mode == "RGB":
            picture = Image.fromarray(read_rgb(file))  # in sRGB
        scale = min(1.0, short_side / min(picture.size))
        width, height = (round(side * scale) for side in picture.size)
        out = io.BytesIO()
        resized = picture.resize((width, height), Image.Resampling.LANCZOS)
        resized.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def write_pack(root: Path, target: Path, short_side: int, quality: int = 80) -> None:
    """Shrink and re-encode every picture below `root` into the zip `target`, written whole or not at all."""
    files = list(sources(root))
    if not files:
        raise FileNotFoundError(f"{root}: no training pictures; expected photos/ and insertbench/ inside")
    with atomic_file(target) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, file in tqdm(files, desc="packing", unit="file"):
            archive.writestr(f"{name}.webp", _webp(file, short_side, quality))


def _decode(name: str, data: bytes) -> Tensor:
    mode = "RGBA" if LAYERS.match(name) else "RGB"  # WebP drops an alpha that is 255 everywhere
    pixels = np.array(Image.open(io.BytesIO(data)).convert(mode))
    return rearrange(torch.from_numpy(pixels), "H W c -> c H W")


def read_pack(file: Path) -> Pack:
    """A pack file => every picture decoded in memory (about 0.4 GB for 1000 photos of short side 256)."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no pack here; write one with `python scripts/pretrain.py pack`")
    with zipfile.ZipFile(file) as archive:
        images = {
            name[: -len(".webp")]: _decode(name, archive.read(name))
            for name in archive.namelist()
            if name.endswith(".webp") and not name.startswith("pairs/")  # of older packs
        }
    multiview: dict[str, list[Tensor]] = {}
    for name, image in images.items():
        if name.startswith("multiview/"):
            multiview.setdefault(name.split("/")[1], []).append(image)
    scenes = sorted({name.split("/")[1] for name in images if name.startswith("relit/")})
    photos = [name for name in images if name.startswith("photos/")]
    silhouettes = [images.get(name.replace("photos/", "silhouettes/")) for name in photos]
    return Pack(
        photos=[images[name] for name in photos],
        silhouettes=[None if image is None else image[:1] for image in silhouettes],
        cutouts=[image for name, image in images.items() if name.startswith("cutouts/")],
        multiview=multiview,
        relit=[_relit(name, images) for name in scenes],
    )


def _relit(name: str, images: dict[str, Tensor]) -> Relit:
    background, truth, mask = (images[f"relit/{name}/{part}"] for part in ("background", "truth", "mask"))
    posed = [images[f"relit/{name}/posed_{i}"] for i in range(POSED)]
    views = [images[f"relit/{name}/view_{i}"] for i in range(VIEWS)]
    return Relit(name, background, truth, mask[:1], posed, views)
