"""Smaller copies and crops of pictures for the pages. The pictures themselves are never changed.

Proxies are JPEG files in a cache folder, made once. Crops are read from a raw copy of the pixels on disk, so
that a picture of 100 megapixels needs little memory while somebody looks at it.
"""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.exif import orientation, upright_pixels
from ldm.data.files import atomic_file

SIDES = (256, 512, 1024, 1600, 2048, 3072)  # pixels, longer side of proxies; a request gets the next one up
QUALITY = 90  # of proxies
RAW_COPIES = 3  # kept in the cache; each takes 3 bytes a pixel
RAW = f"{'[0-9a-f]' * 64}.npy"  # what their names, hashes of pictures, match
TILE = 2048  # pixels; longest side of a crop


class Proxies:
    """Proxies and crops of picture files, cached in `folder` by the `key` of a file's content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # one picture is decoded at a time: each takes much memory

    def proxy(self, file: Path, key: str, longest: int) -> Path:
        """A JPEG file of the upright picture, at most about `longest` pixels a side."""
        side = next((side for side in SIDES if side >= longest), SIDES[-1])
        made = self.folder / f"{key}-{side}.jpg"
        if not made.is_file():
            with self._lock:
                if not made.is_file():
                    self._write(made, *_small(file, side))
        return made

    def tile(self, file: Path, key: str, box: tuple[int, int, int, int], longest: int) -> bytes:
        """The pixels in box x0 y0 x1 y1 of the upright picture as PNG, sRGB, at most `longest` px a side."""
        x0, y0, x1, y1 = box
        pixels = self._raw(file, key)
        x0, x1 = sorted((min(max(x0, 0), pixels.shape[1]), min(max(x1, 0), pixels.shape[1])))
        y0, y1 = sorted((min(max(y0, 0), pixels.shape[0]), min(max(y1, 0), pixels.shape[0])))
        if x0 == x1 or y0 == y1:
            raise ValueError(f"the crop {list(box)} holds no pixel of the picture")
        part = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
        part.thumbnail((min(longest, TILE),) * 2, Image.Resampling.BOX)
        out = BytesIO()
        part.save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _raw(self, file: Path, key: str) -> np.ndarray:
        """The upright picture [H,W,3] uint8, mapped from a raw copy."""
        raw = self.folder / f"{key}.npy"
        with self._lock:
            if not raw.is_file():
                copies = sorted(self.folder.glob(RAW), key=lambda file: file.stat().st_mtime)
                for old in copies[: 1 - RAW_COPIES]:
                    old.unlink()
                with atomic_file(raw) as out:
                    np.save(out, _pixels(file))
            return np.load(raw, mmap_mode="r")

    def _write(self, made: Path, small: Image.Image, profile: bytes | None) -> None:
        with atomic_file(made) as out:
            small.save(out, "JPEG", quality=QUALITY, **({"icc_profile": profile} if profile else {}))


def _small(file: Path, side: int) -> tuple[Image.Image, bytes | None]:
    """A picture at most `side` pixels a side, RGB and upright, and its profile, None: sRGB.

    JPEG is decoded small.
    """
    try:
        with file.open("rb") as raw, Image.open(raw) as opened:
            profile, turn = opened.info.get("icc_profile"), orientation(opened)
            if opened.format == "JPEG" and (opened.mode == "RGB" or (opened.mode == "L" and not profile)):
                opened.draft(opened.mode, (side, side))
                small = opened.convert("RGB")
                small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
                return Image.fromarray(upright_pixels(np.asarray(small), turn)), profile
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file.name}: broken picture ({error}); save it again") from error
    small = Image.fromarray(_pixels(file))
    small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=2.0)
    return small, None


def _pixels(file: Path) -> np.ndarray:
    """An upright picture, uint8 [H,W,3], transparent pixels over mid-grey."""
    from ldm.data.picture import read_rgb

    return read_rgb(file)
