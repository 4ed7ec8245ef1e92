"""Backgrounds that were uploaded, and the masks drawn on them; files are stored byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ldm.data.files import PICTURE_SUFFIXES, atomic_file, file_digest, write_file
from ldm.studio.proxies import Proxies
from ldm.studio.workspace import Workspace, checked_name, new_id, read_json, stored_name, write_json

ABOUT = "about.json"
PIXELS = 170_000_000  # a larger picture is refused: Pillow takes it for an attack
COPIED = 1 << 20  # bytes at once
PROXY = 2048  # pixels; what pages ask for first


class Backgrounds:
    """The backgrounds of a workspace, by id."""

    def __init__(self, workspace: Workspace, proxies: Proxies) -> None:
        self.workspace, self.proxies = workspace, proxies

    def all(self) -> list[dict[str, Any]]:
        """Newest first."""
        folders = sorted(self.workspace.part("backgrounds").iterdir(), reverse=True)
        return [self._summary(read_json(folder / ABOUT)) for folder in folders if (folder / ABOUT).is_file()]

    def add(self, name: str, data: BinaryIO) -> dict[str, Any]:
        """Store a picture; ValueError in one line if it is none, too large, or of an unknown kind."""
        own = new_id()
        folder = self.workspace.part("backgrounds", own)
        file = folder / stored_name(name, PICTURE_SUFFIXES)
        try:
            store(file, data)
            facts = facts_of(file, name)
            self.proxies.proxy(file, facts["sha256"], PROXY)  # decodes all of it, so damage shows now
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_json(folder / ABOUT, {"id": own, "name": name, "file": file.name, **facts})
        return self.get(own)

    def get(self, own: str) -> dict[str, Any]:
        """What is known of a background."""
        folder = self.workspace.part("backgrounds", own)
        about = read_json(folder / ABOUT)
        masks = sorted((folder / "masks").glob("*.png"))
        return {**self._summary(about), "sha256": about["sha256"], "masks": [mask.stem for mask in masks]}

    def file(self, own: str) -> tuple[Path, str]:
        """The stored file, and the key of its content."""
        folder = self.workspace.part("backgrounds", own)
        about = read_json(folder / ABOUT)
        return folder / about["file"], about["sha256"]

    def remove(self, own: str) -> None:
        """Remove a background with its masks; results keep their own copies of masks."""
        shutil.rmtree(self.file(own)[0].parent)

    def mask_file(self, own: str, mask: str) -> Path:
        """The file of a mask; FileNotFoundError if there is none."""
        file = self._mask(own, mask)
        if not file.is_file():
            raise FileNotFoundError(f"mask {mask}: not drawn yet")
        return file

    def put_mask(self, own: str, mask: str, data: bytes) -> dict[str, Any]:
        """Store a mask, a PNG of the background's upright size that is white where the object goes."""
        about, file = read_json(self.workspace.part("backgrounds", own) / ABOUT), self._mask(own, mask)
        mask_levels(data, (about["width"], about["height"]))
        write_file(file, data)
        return {"id": mask}

    def _mask(self, own: str, mask: str) -> Path:
        return self.workspace.part("backgrounds", own) / "masks" / f"{checked_name(mask)}.png"

    def _summary(self, about: dict[str, Any]) -> dict[str, Any]:
        kept = {key: about[key] for key in ("id", "name", "width", "height")}
        return {**kept, "image": f"/api/backgrounds/{about['id']}/image"}


def store(file: Path, data: BinaryIO) -> None:
    """Write an upload's bytes to a file, atomically."""
    with atomic_file(file) as out:
        shutil.copyfileobj(data, out, COPIED)


def stored_picture(folder: Path, given: str, data: BinaryIO) -> tuple[Path, str]:
    """A picture that was sent, in this folder, and its sha256."""
    file = folder / stored_name(given, PICTURE_SUFFIXES)
    store(file, data)
    return file, facts_of(file, given, convert=True)["sha256"]


def facts_of(file: Path, name: str, convert: bool = False) -> dict[str, Any]:
    """Size and hash of a picture file; ValueError in one line, that calls it `name`.

    `convert`: other colour modes are taken, too, as `read_picture` has it.
    """
    from ldm.data.picture import read_size

    with calling(file, name):
        width, height = read_size(file, convert)
    if width * height > PIXELS:
        millions = width * height / 1e6
        raise ValueError(f"{name[:80]}: {millions:.0f} megapixels; at most {PIXELS / 1e6:.0f} are taken")
    return {"width": width, "height": height, "sha256": file_digest(file)}


@contextmanager
def calling(file: Path, name: str) -> Iterator[None]:
    """Errors about a stored file call it by the name that its owner knows."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), name[:80])) from error


def mask_levels(data: bytes, size: tuple[int, int]) -> Any:
    """A mask's PNG => levels uint8 [H,W]; ValueError unless it is grey and of `size` (width, height)."""
    from io import BytesIO

    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as opened:
            if opened.size != size:
                given, needed = (f"{width} x {height}" for width, height in (opened.size, size))
                raise ValueError(f"the mask has {given} pixels, its picture {needed}; make them equal")
            if opened.mode not in ("1", "L"):
                raise ValueError(f"the mask has colour mode {opened.mode}; send a grey PNG (L)")
            return np.asarray(opened.convert("L"))
    except UnidentifiedImageError as error:
        raise ValueError("the mask is no PNG; send a grey PNG") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mask is no readable PNG ({error})") from error
