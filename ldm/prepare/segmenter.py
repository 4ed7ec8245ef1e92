"""Segmenters: a photo => the box of the object that stands out; a photo and a box => the object's alpha.

The network of the included base and GrabCut need nothing more; rembg and onnxruntime are optional packages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ldm.compositing.cut_out import (
    FRAME,
    SIDE,
    PixelBox,
    matte,
    scaled_down,
    segment,
    surroundings,
    tidied,
)
from ldm.data.boxes import Box, pixel_box
from ldm.data.failure import check_file
from ldm.data.files import path_of
from ldm.insertion.roi import box_of

# mean and deviation of RGB in [0,1]
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
NORMALISATIONS: tuple[Normalisation, ...] = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's: U2-Net, BiRefNet
    ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),  # IS-Net
)
ONNX_SIDE = 320  # pixels; of a model that does not fix its input's size (U2-Net's)
SEGMENTERS = ("matting", "grabcut", "rembg")
# a photo's window, uint8 [h,w,3], and the object's box in it => alpha float32 in [0,1], of any resolution
Find = Callable[[np.ndarray, PixelBox], np.ndarray]


class Segmenter:
    """Finds the object of a photo, and cuts it out; `name` is recorded with what it made."""

    def __init__(self, name: str, find: Find) -> None:
        self.name, self.find = name, find

    def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Photo uint8 [H,W,3] and a box x0 y0 x1 y1 in it => alpha float32 [H,W] in [0,1], 0 outside."""
        x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
        window, inner = surroundings((x0, y0, x1, y1), image.shape[:2])
        whole, inside = np.zeros((2, *image.shape[:2]), np.float32)
        target = whole[window]
        found = self.find(image[window], inner)
        target[:] = cv2.resize(found, target.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        inside[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
        return inside

    def locate(self, image: np.ndarray) -> Box | None:
        """The box of what stands out in a photo uint8 [H,W,3] with ground at its border; None: nothing."""
        small = scaled_down(image, min(1.0, SIDE / max(image.shape[:2])))
        height, width = small.shape[:2]
        x, y = round(FRAME * width), round(FRAME * height)
        found = tidied(cv2.resize(self.find(small, (x, y, width - x, height - y)), (width, height)) > 0.5)
        if not found.any():
            return None
        left, top, right, bottom = box_of(found)
        across, down = image.shape[1] / width, image.shape[0] / height
        return left * across, top * down, right * across, bottom * down


def load_segmenter(name: str = "matting") -> Segmenter:
    """A segmenter by name (`SEGMENTERS`), or an ONNX saliency model by path.

    Raises ValueError if the name is unknown, FileNotFoundError if the model is missing and
    ModuleNotFoundError, with the command that installs it, if a package is missing.
    """
    if name == "grabcut":
        return Segmenter(name, partial(refined, segment))
    if name == "matting":
        from ldm.compositing.matting import included_matting

        return Segmenter(name, partial(refined, included_matting()))
    if name == "rembg":
        return Segmenter(name, load_rembg())
    if name.endswith(".onnx"):
        return Segmenter(Path(name).name, OnnxModel(path_of(name)))
    raise ValueError(f"--segmenter {name}: expected {', '.join(SEGMENTERS)} or the path of an ONNX model")


def refined(find: Find, pixels: np.ndarray, box: PixelBox) -> np.ndarray:
    """The coarse alpha that `find` makes of at most SIDE px, like GrabCut's `segment`, with a fine edge."""
    factor = min(1.0, SIDE / max(pixels.shape[:2]))
    x0, y0, x1, y1 = (round(value * factor) for value in box)
    small = scaled_down(pixels, factor)
    return matte(small, find(small, (x0, y0, x1, y1)))


class OnnxModel:
    """A saliency network as an ONNX file: one image [1,3,h,w] => one map.

    U2-Net, IS-Net, BiRefNet and their like. A map outside [0,1] is taken as logits. No file states which
    of NORMALISATIONS its network expects: the one with the surer map of the first picture is used for all.
    """

    def __init__(self, path: Path) -> None:
        check_file(path, "an ONNX model", "give another --segmenter")
        try:
            import onnxruntime
        except ImportError as error:
            raise ModuleNotFoundError(
                f"--segmenter {path} needs onnxruntime; run `pip install '.[onnx]'`"
            ) from error
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common public type
            raise ValueError(f"--segmenter {path}: not a readable ONNX model ({error})") from error
        self.input = self.session.get_inputs()[0]
        self.normalisation: Normalisation | None = None

    def __call__(self, pixels: np.ndarray, box: PixelBox) -> np.ndarray:
        tried = (self.normalisation,) if self.normalisation else NORMALISATIONS
        maps = {one: self._map(pixels, one) for one in tried}
        self.normalisation = max(maps, key=lambda one: sureness(maps[one]))
        return maps[self.normalisation]

    def _map(self, pixels: np.ndarray, normalisation: Normalisation) -> np.ndarray:
        height, width = (side if isinstance(side, int) else ONNX_SIDE for side in self.input.shape[2:])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        mean, deviation = np.array(normalisation, np.float32)
        x = np.ascontiguousarray(((small - mean) / deviation).transpose(2, 0, 1)[None])
        found = np.asarray(self.session.run(None, {self.input.name: x})[0])
        alpha = found.reshape(found.shape[-2:]).astype(np.float32)
        if alpha.min() < 0 or alpha.max() > 1:
            alpha = np.float32(1) / (np.float32(1) + np.exp(-alpha))
        return alpha


def sureness(alpha: np.ndarray) -> float:
    """Mean of an alpha [h,w], weighted by itself: 1 if every pixel is wholly object or wholly ground."""
    return float((alpha**2).sum() / max(alpha.sum(), 1e-6))


def load_rembg() -> Find:
    """The network of the package rembg (U2-Net), which downloads its weights once."""
    try:
        import rembg
    except ImportError as error:
        raise ModuleNotFoundError(
            "--segmenter rembg needs the package rembg; run `pip install '.[rembg]'`"
        ) from error
    session: Any = rembg.new_session()

    def find(pixels: np.ndarray, box: PixelBox) -> np.ndarray:
        found = rembg.remove(np.ascontiguousarray(pixels), session=session, only_mask=True)
        return np.asarray(found, np.float32) / 255

    return find
