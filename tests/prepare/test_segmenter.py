"""Segmenters: GrabCut is there; others are plug-ins that say what they need."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ldm.prepare.segmenter import load_segmenter


@pytest.mark.parametrize("name", ["grabcut", "matting"])
@pytest.mark.parametrize("size", [(90, 120), (900, 1200)])
def test_a_patch_is_found_at_the_photo_s_size(name: str, size: tuple[int, int]) -> None:
    height, width = size
    image = np.full((*size, 3), (40, 150, 60), np.uint8)
    image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (220, 40, 30)
    box = (0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
    alpha = load_segmenter(name)(image, box)
    assert alpha.shape == size and alpha.dtype == np.float32 and 0 <= alpha.min() <= alpha.max() <= 1
    assert abs((alpha > 0.5).mean() - 1 / 9) < 0.01


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--segmenter sam: expected matting, grabcut, rembg or the path"):
        load_segmenter("sam")
    with pytest.raises(FileNotFoundError, match="no such ONNX model; give another"):
        load_segmenter(str(tmp_path / "u2net.onnx"))
    (tmp_path / "u2net.onnx").touch()
    for name, package in ((str(tmp_path / "u2net.onnx"), "onnx"), ("rembg", "rembg")):
        for module in ("onnxruntime", "rembg"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ModuleNotFoundError, match=rf"pip install '\.\[{package}\]'"):
            load_segmenter(name)


class Session:
    """A stand-in for onnxruntime's: its model calls pixels in its range the object, doubts brighter ones."""

    logits, low, high = False, 0.0, 9.0
    seen: list[np.ndarray]

    def __init__(self, path: str, providers: list[str]) -> None:
        self.seen = []

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=["n", 3, 64, "w"])]

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen.append(inputs["x"])
        level = inputs["x"].mean(1, keepdims=True)
        bright = np.where(level > self.high, 0.4, level > self.low).astype(np.float32)
        return [20 * bright - 10 if self.logits else bright]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runtime: Any = ModuleType("onnxruntime")
    runtime.InferenceSession = Session
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "model.onnx").touch()
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("logits", [False, True])
def test_an_onnx_model_sees_the_box_and_its_map_fills_it(
    logits: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "logits", logits)
    image = np.zeros((100, 200, 3), np.uint8)
    image[30:70, 60:140] = 255
    segmenter = load_segmenter(str(model))
    alpha = segmenter(image, (50, 20, 120, 80))
    seen = segmenter.find.session.seen[0]
    assert segmenter.name == "model.onnx" and seen.shape == (1, 3, 64, 320) and seen.dtype == np.float32
    assert alpha[35:65, 66:118].min() > 0.9 and alpha[:, 121:].max() == 0 and alpha[:20].max() == 0


def test_an_onnx_model_sees_the_normalisation_that_makes_it_surer(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of 0.6 to 0.9 is 0.1 to 0.4 for IS-Net, and up to 1.9 for U2-Net."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:50, 10:50] = np.linspace(153, 230, 40).astype(np.uint8)[:, None, None]
    for low, high in ((0.0, 0.5), (0.5, 3.0)):
        monkeypatch.setattr(Session, "low", low)
        monkeypatch.setattr(Session, "high", high)
        find = load_segmenter(str(model)).find
        find(image, (0, 0, 64, 64))
        find(image, (0, 0, 64, 64))
        maxima = [x.max() for x in find.session.seen]
        assert low < maxima[-1] < high
        assert len(maxima) == 3, "both are tried for the first picture only"
