"""Learning and inserting on a device that is not the CPU (emulated, so that it runs everywhere)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import ldm
from tests.fixtures.emulated_gpu import SUPPORTED, emulated_gpu, emulated_trainer

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
