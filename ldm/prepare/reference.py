"""Write the reference of an object folder: the object of one photo, cropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.boxes import Box
from ldm.data.files import atomic_file
from ldm.data.insertset import silhouette_beside
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.data.training_masks import pixel_box

LOSSLESS = (".png", ".webp", ".tif", ".tiff")
JPEG = (".jpg", ".jpeg")
JPEG_QUALITY = 95


def write_reference(root: Path, image: Path, box: Box, silhouette: np.ndarray) -> tuple[Path, Path]:
    """Write a photo's object as test.* and its silhouette as test_mask.png, both cropped to the box.

    The format is the photo's; PNG if that cannot be written or has no transparency.
    """
    picture = read_picture(image, convert=True)
    x0, y0, x1, y1 = pixel_box(box, picture.size)
    crop = replace(picture, pixels=np.ascontiguousarray(picture.pixels[y0:y1, x0:x1]), exif=None)
    opaque, suffix = crop.pixels.shape[2] == crop.n_colours, image.suffix.lower()
    if suffix in JPEG and opaque and crop.pixels.dtype == np.uint8:
        file = root / f"test{suffix}"
        _write_jpeg(file, crop)
    else:
        file = root / f"test{suffix if suffix in LOSSLESS else '.png'}"
        write_picture(file, crop)
    mask = silhouette_beside(file)
    write_picture(mask, Picture(np.ascontiguousarray(silhouette[y0:y1, x0:x1, None])))
    return file, mask


def _write_jpeg(path: Path, picture: Picture) -> None:
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    options = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    with atomic_file(path) as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, **options)
