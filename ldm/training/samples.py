"""The samples of a run: drawn in their order, encoded by VAE and CLIP, and fed to the trainer batch by batch.

Sample i depends on (seed, i) alone, the noise it is trained with included; which samples a batch holds
depends on the step alone. So a resumed run continues as if it had not stopped, with any number of workers.
VAE and CLIP are frozen, so a sample need not be encoded each time it is seen: on two CPU cores that is more
than half of a small base's training step.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytorch_lightning as pl
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ldm.data.pairs import DEFAULT, SampleOptions
from ldm.data.random_draws import sample_generator
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import STEPS, masked_image

PIXELS = 16 * 128**2  # that a VAE encodes together: a large one needs gigabytes, a CPU's cache is small
DRAW_STREAM = 2**33  # added to the seed: which sample is drawn is independent of pictures and noise
POSTERIOR_STREAM = 2**34  # the same for samples of the VAE's posterior
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's names

# a batch of training pairs => what the masked regions show [b,3,S,S] in [-1,1]; None: mid-grey.
# With a fourth channel, of 0 to 1, only what it covers of a region is learnt.
FillImages = Callable[[Mapping[str, Tensor]], Tensor | None]


def fill_with_grey(batch: Mapping[str, Tensor]) -> None:
    """Masked regions are mid-grey, as in the paper."""
    return


@torch.no_grad()
def encoded(
    base: Base,
    batch: Mapping[str, Tensor],
    shown: FillImages = fill_with_grey,
    options: SampleOptions = DEFAULT,
) -> dict[str, Tensor]:
    """TrainingPairs: image [b,3,S,S], mask [b,1,S,S] (1 = fill), reference [b,3,R,R] => latents.

    x_0, masked [b,c,h,w], latent_mask [b,1,h,w], and CLIP's pooled output of the reference, pooled [b,c];
    with a fourth channel of what is shown, weight [b,1,h,w] of the loss.
    Posterior samples depend on the seed and the samples' numbers, index [b].
    """
    image, mask = batch["image"], batch["mask"]
    noise = None
    if options.posterior == "sample":
        a = base.architecture
        noise = posterior_noise(batch["index"], options.seed, a.latent_size, a.latent_channels).to(
            image.device
        )
    fill = shown(batch)
    with_region = masked_image(image, mask, fill)
    x_0, masked = base.encode(torch.cat([image, with_region]), noise).float().chunk(2)
    masked = base.mark_grey(masked, with_region, mask)
    pooled = base.conditioner.pooled(clip_normalised(batch["reference"])).float()
    made = {"x_0": x_0, "masked": masked, "latent_mask": base.latent_mask(mask), "pooled": pooled}
    if fill is not None and fill.shape[1] == 4:
        made["weight"] = base.latent_mask(1 - mask * (1 - fill[:, 3:]))
    return made


def at_once(size: int) -> int:
    """How many images of `size` px, each with its masked image, a VAE encodes together."""
    return max(PIXELS // (2 * size**2), 1)


def posterior_noise(index: Tensor, seed: int, size: int, channels: int = 4) -> Tensor:
    """Standard normal noise [2b,c,size,size] for samples of these numbers [b]: b images, b masked ones."""
    generators = [sample_generator(POSTERIOR_STREAM + seed, i) for i in index.tolist()]
    noise = torch.stack([torch.randn(2, channels, size, size, generator=g) for g in generators])
    return rearrange(noise, "b two c h w -> (two b) c h w")


class EncodedSamples(Dataset):
    """`cached_samples` samples, encoded once, on the base's device, under autocast of `precision`.

    Item i is one of them by (seed, i) alone, so a resumed run continues with the same samples. `progress`
    wraps the numbers of the first sample of each encoded batch, for a progress bar.
    """

    def __init__(
        self,
        base: Base,
        pairs: Dataset,
        options: SampleOptions,
        shown: FillImages = fill_with_grey,
        precision: str = "32-true",
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> None:
        self.size, self.seed = options.cached_samples, options.seed
        half, n = HALF.get(precision), at_once(base.architecture.image_size)
        batches = []
        for start in progress(range(0, self.size, n)):
            numbers = range(start, min(start + n, self.size))
            batch = default_collate([pairs[i] for i in numbers])
            batch = {key: value.to(base.device) for key, value in batch.items()}
            with torch.autocast(base.device.type, half, enabled=half is not None):
                made = encoded(base, batch, shown, options) | {"view": batch["view"]}
            batches.append({key: value.cpu() for key, value in made.items()})
        self.samples = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = sample_generator(DRAW_STREAM + self.seed, index)
        drawn = int(torch.randint(self.size, (), generator=generator))
        return {key: value[drawn] for key, value in self.samples.items()} | {"index": torch.tensor(index)}


def cast_frozen(module: nn.Module, precision: str) -> None:
    """Cast the frozen weights of convolutions and linear layers, in place, if `precision` is a mixed one."""
    dtype = HALF.get(precision)
    if dtype is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            for weight in part.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)


NOISE_STREAM = 2**32  # added to the seed: noise is independent of the pictures


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
    """Feeds the trainer the samples, dicts with their number `index`, from its current step on."""

    def __init__(self, samples: Dataset, batch_size: int, workers: int = 0) -> None:
        super().__init__()
        self.samples, self.batch_size, self.workers = samples, batch_size, workers

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
