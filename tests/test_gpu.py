"""Learning and inserting on a device that is not the CPU (emulated, so that it runs everywhere)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Generator, Tensor

import ldm
from ldm.compositing.composite_fill import CompositeSettings, make_composite_fill
from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.region import InsertableObject, InsertRequest
from ldm.insertion.roi import Roi
from ldm.models.base import Base
from ldm.scenes.regional_context import in_regions
from ldm.tiling.second_pass import TiledSecondPass
from tests.fixtures.emulated_gpu import SUPPORTED, emulated_gpu, emulated_trainer
from tests.fixtures.small import small_base

OBJECT = "examples/objects/rocket_bee"
SCENE, MASK = "examples/scenes/table.jpg", "examples/scenes/table_mask.png"
FEW = {"max_steps": 2, "batch_size": 4, "cached_samples": 8, "precision": "32-true"}

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this torch has no device backends in Python")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with emulated_gpu() as device:
        monkeypatch.setattr("ldm.api.device_named", lambda name: device)
        monkeypatch.setattr(pl, "Trainer", emulated_trainer)
        yield device


def test_the_emulated_device_refuses_tensors_of_two_devices(gpu: str) -> None:
    there, here = torch.ones(3, device=gpu), torch.arange(3.0)
    with pytest.raises(RuntimeError, match="expected all tensors on gpu:0"):
        there + here
    with pytest.raises(RuntimeError, match="expected all tensors on gpu:0"):
        here[there.long()]
    with pytest.raises(TypeError, match=r"Tensor\.cpu"):
        there.numpy()
    with pytest.raises(RuntimeError, match="expected a generator of gpu:0"):
        torch.randn(3, device=gpu, generator=torch.Generator())
    assert (there + here.to(gpu)).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("mini", ["insert.keep_scene=true"]),
        ("mini", []),
        ("mini_paper", ["sample.steps=4", "sample.deep_cache_interval=2", "sample.second_pass=0.5"]),
    ],
)
def test_an_object_is_learnt_and_inserted(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, settings: list[str]
) -> None:
    def inserted() -> np.ndarray:
        model = ldm.load(f"configs/{config}.yaml", *settings)
        return ldm.insert(model, file, SCENE, mask=MASK, seed=1).picture.pixels

    model = ldm.load(f"configs/{config}.yaml", *settings)
    assert str(model.session.base.device) == gpu
    file = ldm.learn(model, OBJECT, **FEW).save(tmp_path / "bee.safetensors")
    there = inserted()
    monkeypatch.setattr("ldm.api.device_named", lambda name: "cpu")
    here = inserted()
    assert np.abs(there.astype(int) - here).max() <= 2


def composited(base: Base, seed: int) -> InsertableObject:
    """An opaque object of noise that the base is shown in its region."""
    picture = torch.rand(1, 3, 28, 28, generator=Generator().manual_seed(seed)) * 2 - 1
    context = base.context(picture.to(base.device))
    return InsertableObject(base.contexts(context), make_composite_fill(CompositeSettings())(picture))


def halves(side: int) -> Tensor:
    """Left and right half of a square."""
    masks = torch.zeros(2, side, side)
    masks[0, :, : side // 2], masks[1, :, side // 2 :] = 1, 1
    return masks


def test_the_masks_of_objects_in_one_region_are_where_their_contexts_are(gpu: str) -> None:
    base = small_base().to(gpu)
    joint = in_regions([composited(base, 1), composited(base, 2)], halves(32))
    assert all(str(context.masks.device) == gpu for context in joint.contexts)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_composited_objects_in_one_region_are_refined_in_tiles(gpu: str, prediction: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    mask = np.zeros((80, 80), bool)
    mask[20:60, 16:64] = True

    def inserted(device: str) -> np.ndarray:
        base = small_base(prediction=prediction).to(device)
        joint = in_regions([composited(base, 1), composited(base, 2)], halves(64))
        options = InsertOptions(Sampling("ddim", 2, 2.0), BLENDS["paste"], second_pass=TiledSecondPass(0.5))
        request = InsertRequest(mask, [Roi(8, 8, 72, 72)], [3])
        [[result]] = insert(base, Picture(pixels), [request], [joint], options)
        return result.picture.pixels

    there, here = inserted(gpu), inserted("cpu")
    assert np.abs(there.astype(int) - here).max() <= 1
    assert (here[mask] != pixels[mask]).any()
