"""The contact sheet of a base in training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ldm.compositing.composite import boxes_for, placed
from ldm.data.image import to_pixels
from ldm.data.picture import read_rgb
from ldm.models.diffusion import masked_image
from ldm.pretrain.base import BasePreview, BaseTraining
from ldm.pretrain.composer import Composed
from tests.fixtures.small import small_base


def fixed() -> Composed:
    g = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:24] = 1
    references = torch.rand(2, 3, 3, 28, 28, generator=g) * 2 - 1
    image = torch.rand(2, 3, 32, 32, generator=g) * 2 - 1
    return Composed(image, mask, boxes_for(mask), references, torch.ones(2).long())


def test_a_sheet_is_written_every_so_many_steps(tmp_path: Path) -> None:
    module = BaseTraining(small_base(), 1e-3, 10).train()
    preview: Any = BasePreview(fixed(), tmp_path / "run", every=2, steps=2)
    for step in range(1, 5):
        preview.on_train_batch_end(SimpleNamespace(global_step=step), module)
        assert module.training
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == [
        "preview_000002.png",
        "preview_000004.png",
    ]


def test_a_sheet_shows_inputs_results_and_truth(tmp_path: Path) -> None:
    batch = fixed()
    BasePreview(batch, tmp_path, every=0, steps=2).write(small_base(), tmp_path / "a.png")
    columns = np.stack(np.split(read_rgb(tmp_path / "a.png"), 5, axis=1))
    assert columns.shape == (5, 2 * 32, 32, 3)
    truth = np.concatenate([to_pixels(image) for image in batch.image])
    kept = np.ones(32, bool)
    kept[8:24] = False
    assert np.array_equal(columns[4], truth)
    for column in (0, 2, 3):
        assert np.array_equal(columns[column][:, kept], truth[:, kept]), "only the mask is filled"
        assert not np.array_equal(columns[column], truth)
    objects = placed(batch.references[:, 0], batch.place, batch.mask)
    masked = np.concatenate([to_pixels(x) for x in masked_image(batch.image, batch.mask, objects)])
    assert np.array_equal(columns[0], masked), "the reference stands in the hole"
    assert not np.array_equal(columns[2], columns[3]), "one token and all of them differ"


def test_none_is_written_if_none_is_wanted(tmp_path: Path) -> None:
    preview: Any = BasePreview(fixed(), tmp_path, every=0)
    preview.on_train_batch_end(SimpleNamespace(global_step=0), BaseTraining(small_base(), 1e-3, 10))
    assert not list(tmp_path.iterdir())
