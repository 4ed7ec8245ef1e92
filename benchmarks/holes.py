"""How well a background is continued into a hole: photos with holes of known content => a table.

`python -m benchmarks.holes PHOTOS --count 64 --out holes` writes holes.md and, to look at, holes.jpg. Holes
are ellipses of 0.2 to 0.5 of the picture's sides.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from einops import rearrange
from PIL import Image

from ldm.compositing.background_fill import fill_background
from ldm.data.files import path_of, pictures_in
from ldm.data.image import to_image
from ldm.data.picture import read_rgb
from ldm.evaluation.metrics import bootstrap, perceptual, psnr
from ldm.features.imagenet import ImageNetFeatures

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image float [h,w,3] in [-1,1], hole bool [h,w]
SIDE = 320  # px of the longer side at which all are compared
SHOWN = 12  # photos of the picture


def random_hole(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random ellipse inside a picture of `size` (h, w), bool [h,w]."""
    radii = [max(2, round(rng.uniform(0.1, 0.25) * side)) for side in size]
    centre = [int(rng.integers(r, side - r)) for r, side in zip(radii, size, strict=True)]
    hole = np.zeros(size, np.uint8)
    cv2.ellipse(hole, centre[::-1], radii[::-1], 0, 0, 360, 1, cv2.FILLED)
    return hole.astype(bool)


def by_opencv(flag: int) -> Fill:
    """OpenCV's inpainting, which works at 8 bits."""

    def fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        eight = np.ascontiguousarray(((image + 1) * 127.5).round().clip(0, 255).astype(np.uint8))
        return cv2.inpaint(eight, hole.astype(np.uint8), 5, flag).astype(np.float32) / 127.5 - 1

    return fill


def rim_mean(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One colour: the mean of the pixels around the hole."""
    rim = cv2.dilate(hole.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~hole
    out = image.copy()
    out[hole] = image[rim].mean(0)
    return out


FILLS: dict[str, Fill] = {
    "mean colour around the hole": rim_mean,
    "OpenCV, Telea": by_opencv(cv2.INPAINT_TELEA),
    "OpenCV, Navier-Stokes": by_opencv(cv2.INPAINT_NS),
    "`background_fill`": fill_background,
}


def measure(photos: Sequence[Path], seed: int = 0) -> tuple[str, np.ndarray]:
    """Fill a hole in each photo in every way => a table, and uint8 rows of hole, results, photo."""
    rng, features = np.random.default_rng(seed), ImageNetFeatures()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in FILLS}
    rows: list[np.ndarray] = []
    for photo in photos:
        pixels = read_rgb(photo)
        factor = SIDE / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = rearrange(to_image(small), "c h w -> h w c").numpy()
        hole = random_hole(image.shape[:2], rng)
        row = [np.where(hole[..., None], 0, image)]
        for name, fill in FILLS.items():
            begun = time.process_time()
            filled = fill(image, hole)
            seconds = time.process_time() - begun
            a, b = (
                to_image((x * 127.5 + 127.5).round().clip(0, 255).astype(np.uint8)) for x in (filled, image)
            )
            found[name].append((psnr(a, b, hole), perceptual(features, a, b, hole), seconds))
            row.append(filled)
        if len(rows) < SHOWN:
            rows.append(np.concatenate([_square(x) for x in (*row, image)], 1))
    lines = ["| | PSNR in the hole, dB | feature distance | processor seconds |", "|---|---|---|---|"]
    for name, values in found.items():
        p, d, s = np.array(values).T
        low, high = bootstrap(p.tolist())
        lines.append(
            f"| {name} | {p.mean():.1f} [{low:.1f}, {high:.1f}] | {d.mean():.3f} | {np.median(s):.2f} |"
        )
    return "\n".join(lines) + "\n", np.concatenate(rows)


def _square(image: np.ndarray) -> np.ndarray:
    """Float [h,w,3] in [-1,1] => uint8 [160,160,3], stretched."""
    small = cv2.resize(image.astype(np.float32), (160, 160), interpolation=cv2.INTER_AREA)
    return ((small + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=path_of, help="folder of photos")
    parser.add_argument("--count", type=int, default=64, help="photos, evenly spread [64]")
    parser.add_argument("--out", type=path_of, default=Path("holes"), help="writes OUT.md and OUT.jpg")
    args = parser.parse_args()
    every = pictures_in(args.photos)
    chosen = [every[i * len(every) // args.count] for i in range(min(args.count, len(every)))]
    table, rows = measure(chosen)
    args.out.with_suffix(".md").write_text(table, "utf-8")
    Image.fromarray(rows).save(args.out.with_suffix(".jpg"), quality=85)
    print(table)


if __name__ == "__main__":
    main()
