"""The samples of a run in their order, batch by batch, from the step that it resumes at.

Sample i depends on (seed, i) alone, the noise it is trained with included; which samples a batch holds
depends on the step alone. So a resumed run continues as if it had not stopped, whatever the workers did.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ldm.data.pairs import sample_generator
from ldm.models.diffusion import STEPS

NOISE_STREAM = 2**32  # added to the seed: noise is independent of the pictures


class Numbered(Dataset):
    """A data set of dicts, with the `index` of every item added."""

    def __init__(self, samples: Dataset) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.samples[index] | {"index": torch.tensor(index)}


class Order(Sampler):
    """Batches `first` .. `last` - 1 of sample numbers; every device takes its own part of a batch."""

    def __init__(self, batch_size: int, first: int, last: int, rank: int = 0, world: int = 1) -> None:
        self.batch_size, self.first, self.last, self.rank, self.world = batch_size, first, last, rank, world

    def __len__(self) -> int:
        return self.last  # Lightning also counts the batches before the step that is resumed

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first, self.last):
            start = (batch * self.world + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


class SampleModule(pl.LightningDataModule):
    """Feeds the trainer the samples from its current step on."""

    def __init__(self, samples: Dataset, batch_size: int, workers: int = 0) -> None:
        super().__init__()
        self.samples, self.batch_size, self.workers = Numbered(samples), batch_size, workers

    def train_dataloader(self) -> DataLoader:
        """The batches from the trainer's step on; called after a checkpoint is restored."""
        trainer = self.trainer
        assert trainer is not None
        first, last = (s * trainer.accumulate_grad_batches for s in (trainer.global_step, trainer.max_steps))
        order = Order(self.batch_size, first, last, trainer.global_rank, trainer.world_size)
        return DataLoader(
            self.samples,
            batch_sampler=order,
            num_workers=self.workers,
            worker_init_fn=leave_interrupts_to_parent if self.workers else None,
            persistent_workers=self.workers > 0,
        )


def leave_interrupts_to_parent(worker: int) -> None:
    """Ctrl-C reaches every process; a worker must keep running until the trainer has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def draw_noise(
    index: Tensor, seed: int, shape: tuple[int, ...], drop_context: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample numbers [b] => t [b] in 0 .. T-1, eps [b,*shape], drop the context [b]; drawn on the CPU."""
    drawn = [_draw(sample_generator(NOISE_STREAM + seed, i), shape) for i in index.tolist()]
    t, eps, chance = (torch.stack(x) for x in zip(*drawn, strict=True))
    return t, eps, chance < drop_context


def _draw(generator: torch.Generator, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.randint(STEPS, (), generator=generator)
    return t, torch.randn(shape, generator=generator), torch.rand((), generator=generator)
