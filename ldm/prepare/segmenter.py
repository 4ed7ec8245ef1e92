"""Segmenters: a photo and the box of an object in it => the object's alpha.

GrabCut needs nothing more; rembg and ONNX saliency models are optional packages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ldm.compositing.cut_out import SIDE, PixelBox, matte, segment, shrunk, surroundings
from ldm.data.boxes import Box
from ldm.data.training_masks import pixel_box

MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # of ImageNet, as saliency models expect
STD = np.array((0.229, 0.224, 0.225), np.float32)
ONNX_SIDE = 320  # pixels; of a model that does not fix its input's size (U2-Net's)
SEGMENTERS = ("grabcut", "matting", "rembg")


class Segmenter(Protocol):
    """Cuts out the object in a box; `name` is recorded with what it made."""

    name: str

    def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Photo uint8 [H,W,3] and a box x0 y0 x1 y1 in it => alpha float32 [H,W] in [0,1], 0 outside."""
        ...


def load_segmenter(name: str = "grabcut", base: Path = Path("checkpoints/mini")) -> Segmenter:
    """A segmenter by name (`SEGMENTERS`), or an ONNX saliency model by path; `base`: has that of "matting".

    Raises ValueError if the name is unknown, FileNotFoundError if the model is missing and
    ModuleNotFoundError, with the command that installs it, if a package is missing.
    """
    if name == "grabcut":
        return InWindow(name, segment)
    if name == "matting":
        from ldm.compositing.matting import FILE, Matting

        return InWindow(name, Matting(base / FILE))
    if name == "rembg":
        return Rembg()
    if name.endswith(".onnx"):
        return OnnxModel(Path(name))
    raise ValueError(f"--segmenter {name}: expected {', '.join(SEGMENTERS)} or the path of a model.onnx")


class InWindow:
    """A function from a window and the box in it to a coarse alpha; a guided filter refines its edge."""

    def __init__(
        self, name: str, find: Callable[[np.ndarray, tuple[int, int, int, int]], np.ndarray]
    ) -> None:
        """`find`: pixels uint8 [h,w,3], at most SIDE px, and a box => float [h,w], as GrabCut's `segment`."""
        self.name, self.find = name, find

    def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
        window, (x0, y0, x1, y1) = _window(image, box)
        pixels = image[window]
        factor = min(1.0, SIDE / max(pixels.shape[:2]))
        small = shrunk(pixels, factor)
        inner = (round(x0 * factor), round(y0 * factor), round(x1 * factor), round(y1 * factor))
        return _whole(matte(small, self.find(small, inner)), image, box, window)


class OnnxModel:
    """A saliency network as an ONNX file: one image [1,3,h,w], ImageNet's normalisation => one map.

    U2-Net, IS-Net, BiRefNet and their like. A map outside [0,1] is taken as logits.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        if not path.is_file():
            raise FileNotFoundError(f"--segmenter {path}: no such file")
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

    def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
        window, _ = _window(image, box)
        pixels = image[window]
        height, width = (side if isinstance(side, int) else ONNX_SIDE for side in self.input.shape[2:])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        normal = (small - MEAN) / STD
        found = np.asarray(
            self.session.run(None, {self.input.name: normal.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        )
        alpha = found.reshape(found.shape[-2:]).astype(np.float32)
        if alpha.min() < 0 or alpha.max() > 1:
            alpha = np.float32(1) / (np.float32(1) + np.exp(-alpha))
        return _whole(alpha, image, box, window)


class Rembg:
    """The network of the package rembg (U2-Net), which downloads its weights once."""

    name = "rembg"

    def __init__(self) -> None:
        try:
            import rembg
        except ImportError as error:
            raise ModuleNotFoundError(
                "--segmenter rembg needs the package rembg; run `pip install '.[rembg]'`"
            ) from error
        self.rembg: Any = rembg
        self.session = rembg.new_session()

    def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
        window, _ = _window(image, box)
        found = self.rembg.remove(np.ascontiguousarray(image[window]), session=self.session, only_mask=True)
        return _whole(np.asarray(found, np.float32) / 255, image, box, window)


def _window(image: np.ndarray, box: Box) -> tuple[tuple[slice, slice], PixelBox]:
    return surroundings(pixel_box(box, image.shape[:2]), image.shape[:2])


def _whole(alpha: np.ndarray, image: np.ndarray, box: Box, window: tuple[slice, slice]) -> np.ndarray:
    """An alpha [h,w] of a window, of any resolution => [H,W] of the photo, 0 outside the box."""
    whole = np.zeros(image.shape[:2], np.float32)
    target = whole[window]
    target[:] = cv2.resize(alpha, target.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    x0, y0, x1, y1 = pixel_box(box, image.shape[:2])
    inside = np.zeros_like(whole)
    inside[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
    return inside
