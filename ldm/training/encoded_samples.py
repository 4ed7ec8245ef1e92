"""What learning an object feeds the UNet: pairs through the VAE and CLIP, anew or from a bank.

VAE and CLIP are frozen, so that a sample need not be encoded each time it is seen: on two CPU cores that is
more than half of a small base's training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from sys import maxsize
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from ldm.data.insertset import InsertSet
from ldm.data.pairs import TrainingPairs, sample_generator
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import masked_image

PIXELS = 8 * 128**2  # encoded at a time: a large base's VAE needs gigabytes for a few pictures
DRAW_STREAM = 2**33  # added to the seed: which sample is drawn is independent of pictures and noise
POSTERIOR_STREAM = 2**34  # the same for samples of the VAE's posterior


Shown = Callable[[Mapping[str, Tensor]], Tensor | None]  # a batch of pairs => what its holes show [b,3,S,S]


def grey(batch: Mapping[str, Tensor]) -> None:
    """The method's own: holes are mid-grey."""
    return


@torch.no_grad()
def encoded(
    base: Base, batch: Mapping[str, Tensor], shown: Shown = grey, posterior: str = "mean", seed: int = 0
) -> dict[str, Tensor]:
    """TrainingPairs: image [b,3,S,S], mask [b,1,S,S] (1 = fill), reference [b,3,R,R] => latents.

    x_0, masked [b,4,h,w], latent_mask [b,1,h,w], and CLIP's view of the reference, pooled [b,c].
    `posterior`: latents are the mean of the VAE's posterior or, with `sample`, drawn from it by the seed and
    the samples' numbers, index [b].
    """
    image, mask = batch["image"], batch["mask"]
    noise = None
    if posterior == "sample":
        noise = posterior_noise(batch["index"], seed, base.architecture.latent_size).to(image.device)
    both = torch.cat([image, masked_image(image, mask, shown(batch))])
    x_0, masked = base.encode(both, noise).float().chunk(2)
    pooled = base.conditioner.pooled(clip_normalised(batch["reference"])).float()
    return {"x_0": x_0, "masked": masked, "latent_mask": base.latent_mask(mask), "pooled": pooled}


def posterior_noise(index: Tensor, seed: int, size: int) -> Tensor:
    """Standard normal noise [2b,4,size,size] for samples of these numbers [b]: b pictures, b masked ones."""
    generators = [sample_generator(POSTERIOR_STREAM + seed, i) for i in index.tolist()]
    noise = torch.stack([torch.randn(2, 4, size, size, generator=generator) for generator in generators])
    return rearrange(noise, "b two c h w -> (two b) c h w")


class EncodedSamples(Dataset):
    """`size` samples, encoded once; item i is one of them by (seed, i) alone, so a run can go on anywhere.

    `posterior`: see `encoded`; a sample's latents are drawn once.
    """

    def __init__(
        self,
        base: Base,
        pairs: Dataset,
        size: int,
        seed: int,
        precision: str = "32-true",
        shown: Shown = grey,
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
        posterior: str = "mean",
    ) -> None:
        self.size, self.seed = size, seed
        kind = base.device.type
        half, n = HALF.get(precision), max(PIXELS // base.architecture.image_size**2, 1)
        batches = []
        for start in progress(range(0, size, n)):
            numbers = range(start, min(start + n, size))
            batch = default_collate([pairs[i] for i in numbers]) | {"index": torch.tensor(numbers)}
            batch = {key: value.to(base.device) for key, value in batch.items()}
            with torch.autocast(kind, half, enabled=half is not None):
                made = encoded(base, batch, shown, posterior, seed) | {"view": batch["view"]}
            batches.append({key: value.cpu() for key, value in made.items()})
        self.samples = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = sample_generator(DRAW_STREAM + self.seed, index)
        drawn = int(torch.randint(self.size, (), generator=generator))
        return {key: value[drawn] for key, value in self.samples.items()}


def samples_of(
    base: Base,
    insertset: InsertSet,
    device: torch.device,
    *,
    seed: int,
    cached_samples: int = 0,
    precision: str = "32-true",
    shown: Shown = grey,
    posterior: str = "mean",
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    **drawing: Any,
) -> Dataset:
    """A run's samples without end: all of them new, or from a bank of so many, encoded now on `device`.

    `drawing`: what `TrainingPairs` has besides, augment, single_view and the like.
    """
    a = base.architecture
    pairs = TrainingPairs(insertset, a.image_size, a.reference_size, seed, maxsize, **drawing)
    if not cached_samples:
        return pairs
    return EncodedSamples(
        base.to(device),
        pairs,
        cached_samples,
        seed,
        precision,
        shown=shown,
        progress=progress,
        posterior=posterior,
    )


HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's names


def narrow_frozen(module: nn.Module, precision: str) -> None:
    """Round what frozen convolutions and linear layers hold, in place, if `precision` is a mixed one."""
    dtype = HALF.get(precision)
    if dtype is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            for weight in part.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)
