"""The replay buffer: what it draws, how often, and that a sample's parts stay together."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import latent_mask, masked_image
from ldm.pretrain.insertion_samples import InsertionBatch
from ldm.pretrain.unet_training import Encoded, ReplayBuffer, encode
from tests.fixtures.small import small_base

BATCH = 4


class Shrinking:
    """Stands in for a base: latents are the image, 8 times smaller."""

    device = torch.device("cpu")
    conditioner = SimpleNamespace(clip=nn.Linear(1, 1))

    def encode(self, image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image, 8)[:, [0, 1, 2, 0]]

    def mark_grey(self, latents: Tensor, masked: Tensor, mask: Tensor) -> Tensor:
        return latents

    def latent_mask(self, mask: Tensor) -> Tensor:
        return latent_mask(mask, (mask.shape[-2] // 8, mask.shape[-1] // 8))


def batch_of(image: Tensor, shown: Tensor, mask: Tensor, references: Tensor) -> InsertionBatch:
    return InsertionBatch(image, shown, mask, mask, references, torch.zeros(len(mask)).long())


def numbered(first: int) -> InsertionBatch:
    """BATCH samples; the number of each is its brightness and its references' bytes."""
    numbers = torch.arange(first, first + BATCH).float().view(BATCH, 1, 1, 1)
    levels = (numbers / 127.5 - 1).expand(BATCH, 3, 16, 16)
    mask = torch.zeros(BATCH, 1, 16, 16)
    mask[..., :8] = 1
    references = (numbers / 127.5 - 1)[:, None].expand(BATCH, 2, 3, 4, 4)
    return batch_of(levels, masked_image(levels, mask), mask, references)


def buffer(batches: int, capacity: int, reuse: int, seed: int = 0) -> ReplayBuffer:
    source = [numbered(BATCH * i) for i in range(batches)]
    return ReplayBuffer(cast(Base, Shrinking()), source, BATCH, capacity, reuse, seed)


def numbers(batch: Encoded) -> list[int]:
    return batch.references[:, 0, 0, 0, 0].tolist()


def test_encoding_is_the_vaes_of_image_and_of_what_is_shown() -> None:
    base, g = small_base(), torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=g) * 2 - 1
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:20, 4:30] = 1
    references = torch.randint(256, (2, 3, 3, 28, 28), generator=g).to(torch.uint8)
    shown = masked_image(image, mask, torch.rand(2, 3, 32, 32, generator=g) * 2 - 1)
    samples = batch_of(image, shown, mask, references / 127.5 - 1)
    batch = encode(base.requires_grad_(True), samples)
    assert torch.allclose(batch.x_0, base.encode(image), atol=0.05), "bf16"
    assert torch.allclose(batch.masked, base.encode(shown), atol=0.05), "bf16"
    assert torch.equal(batch.mask, latent_mask(mask, (16, 16)))
    assert torch.equal(batch.references, references), "bytes in, bytes out"
    stored = encode(base.requires_grad_(False), samples).references
    alone = base.conditioner.pooled(clip_normalised(samples.references[:, 2]))
    assert stored.shape == (2, 3, alone.shape[1]) and torch.allclose(stored[:, 2], alone, atol=0.05)


def test_a_full_buffer_draws_as_often_as_it_should() -> None:
    """While it is small it draws once per batch, then `reuse` times."""
    assert len(list(buffer(batches=10, capacity=100, reuse=3))) == 3 + 7 * 3
    assert len(list(buffer(batches=5, capacity=100, reuse=1))) == 5


@pytest.mark.parametrize("capacity", [1, BATCH, 3 * BATCH])
def test_a_buffer_smaller_than_its_reuse_still_reuses(capacity: int) -> None:
    held = max(1, capacity // BATCH)
    assert len(list(buffer(batches=9, capacity=capacity, reuse=6))) == (held - 1) + (10 - held) * 6


def test_parts_of_a_sample_stay_together() -> None:
    for batch in buffer(batches=8, capacity=4 * BATCH, reuse=2):
        levels = torch.tensor(numbers(batch)) / 127.5 - 1
        assert batch.x_0.shape == (BATCH, 4, 2, 2) and batch.mask.shape == (BATCH, 1, 2, 2)
        assert torch.allclose(batch.x_0[:, 0, 0, 1], levels, atol=1e-6)
        assert torch.allclose(batch.masked[:, 0, 0, 1], levels, atol=1e-6)
        assert (batch.masked[:, :, :, 0] == 0).all() and (batch.mask[..., 0] > batch.mask[..., 1]).all()


def test_only_the_last_samples_are_drawn_and_all_of_them() -> None:
    held = 3
    batches = iter(buffer(batches=40, capacity=held * BATCH, reuse=2))
    seen: set[int] = set()
    for source_batch, drawn in grouped(batches, held, reuse=2):
        newest = BATCH * (source_batch + 1)
        oldest = max(0, newest - held * BATCH)
        assert all(oldest <= number < newest for number in drawn)
        seen |= set(drawn)
    assert len(seen) > 0.8 * 40 * BATCH, "few samples are encoded in vain"


def grouped(batches: Iterator[Encoded], held: int, reuse: int) -> Iterator[tuple[int, list[int]]]:
    """(index of the newest source batch, numbers drawn while it is the newest)."""
    for source_batch in range(40):
        times = reuse if source_batch + 1 >= min(reuse + 1, held) else 1
        yield source_batch, [number for _ in range(times) for number in numbers(next(batches))]
    assert next(batches, None) is None


def test_the_seed_decides_what_is_drawn() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [numbers(batch) for batch in buffer(batches=6, capacity=100, reuse=2, seed=seed)]

    assert drawn(1) == drawn(1) != drawn(2)
