"""The stages of training a base, from pictures to a folder that loads; a stage resumes where it was stopped.

pack: pictures => one file. vae, encoder, unet: training, on the results of the stages before. export: the
finished base.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_model, save_model
from torch import Generator
from torch.utils.data import DataLoader

from ldm.models.architecture import Architecture, build_clip, build_vae
from ldm.models.autoencoder import Autoencoder
from ldm.models.base import Base, load_base, save_base
from ldm.pretrain.autoencoder import (
    AutoencoderCrops,
    ResidualTraining,
    VaeTraining,
    latent_statistics,
    normalise_latents,
)
from ldm.pretrain.base import BasePreview, BaseTraining, ReplayBuffer
from ldm.pretrain.composer import Composer, Drawn, random_crop
from ldm.pretrain.encoder import EncoderTraining
from ldm.pretrain.fit_stage import fit_stage, steps_done
from ldm.pretrain.insertion_base import InsertionTraining, start_from
from ldm.pretrain.insertion_measure import InsertionMeasure, fixed_samples
from ldm.pretrain.insertion_samples import InsertionComposer
from ldm.pretrain.picture_pack import Pack, read_pack, write_pack

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

STAGES = ("pack", "vae", "encoder", "unet", "export")
VALIDATED = 12  # held-out photos, and relit scenes, that the unet stage is measured on
COMPOSITE, INSERTION = "composite", "insertion"


@dataclass(frozen=True)
class PackSection:
    """The file with all training pictures."""

    sources: str = "../shared/data"
    file: str = "cache/pack.zip"
    short_side: int = 256
    quality: int = 80
    held_out: int = 64  # photos that no stage trains on
    held_out_relit: int = 25  # every so many-th relit scene, neither


@dataclass(frozen=True)
class StageSection:
    """One training stage; `lr` is the peak rate.

    `minutes`: limit of wall time, resumed parts included; the rate then follows the time, and `steps` is only
    a limit. 0: none.
    `size`: the side of its pictures, 0 for the architecture's. A VAE with attention in its middle loses about
    3 dB at another size than it was trained at.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 8
    lr: float = 1e-3
    size: int = 0
    perceptual: float = 0.15  # vae: weight of the perceptual distance
    anchored: float = 0.5  # vae: share of the training in which latents are held to mean colours
    reuse: int = 3  # unet: how often an encoded sample is used
    capacity: int = 4096  # unet: encoded samples in the buffer
    frozen_encoder: bool = False  # unet: the image encoder stays as it is, its outputs are buffered
    lr_own: float = 3e-3  # unet: of the tokens that every object of the pack learns
    ema: float = 0.998
    compile: bool = False
    workers: int = 1
    checkpoint_every: int = 200
    preview_every: int = 400


@dataclass(frozen=True)
class PretrainConfig:
    """All settings; `sizes`: the config whose architecture is trained; `export`: where the base is written.

    `init`: a finished base (checkpoints/mini) that the vae and the unet stage start from. A UNet fits
    only the VAE that it was trained on: after more training of the VAE, train the UNet again.
    `inner_from`: config of a finished base with another autoencoder, whose conditioner and inner UNet layers
    the unet stage starts from; the encoder stage is not needed then.
    `samples`: what the unet stage trains on, `composite` (`ldm.pretrain.composer`) or `insertion`: relit
    scenes, recoloured objects, holes (`ldm.pretrain.insertion_samples`).
    """

    sizes: str = "configs/mini.yaml"
    logdir: str = "logs/pretrain_mini"
    export: str = "checkpoints/mini"
    init: str = ""
    inner_from: str = ""
    samples: str = field(default=COMPOSITE, metadata={"choices": (COMPOSITE, INSERTION)})
    precision: str = "bf16-mixed"
    seed: int = 0
    pack: PackSection = field(default_factory=PackSection)
    vae: StageSection = field(default_factory=StageSection)
    encoder: StageSection = field(default_factory=StageSection)
    unet: StageSection = field(default_factory=StageSection)


class Pretraining:
    """The stages of one run; each writes `<logdir>/<stage>.safetensors` for the next.

    `inner`: path and architecture of the base of `inner_from`, if there is one.
    """

    def __init__(
        self,
        config: PretrainConfig,
        architecture: Architecture,
        inner: tuple[Path, Architecture] | None = None,
    ) -> None:
        self.config, self.architecture, self.inner = config, architecture, inner
        self.logdir = Path(config.logdir)

    def needed(self) -> list[str]:
        """Those of STAGES that this run has."""
        return [stage for stage in STAGES if stage != "encoder" or self.inner is None]

    def run(self, stage: str) -> str:
        """Run one of STAGES => what it has written, in a line."""
        return getattr(self, stage)()

    def pack(self) -> str:
        p = self.config.pack
        write_pack(Path(p.sources), Path(p.file), p.short_side, p.quality)
        return f"{p.file}: {Path(p.file).stat().st_size / 2**20:.1f} MB"

    @cached_property
    def pictures(self) -> tuple[Pack, Pack]:
        """What is trained on; the held-out photos and relit scenes."""
        p = self.config.pack
        seen, photos = read_pack(Path(p.file)).split_photos(p.held_out)
        seen, relit = seen.split_relit(p.held_out_relit)
        return seen, replace(seen, photos=photos, relit=relit)

    def composer(self, size: int = 0) -> Composer:
        a = self.architecture
        return Composer(self.pictures[0], size or a.image_size, a.reference_size)

    def fit(self, name: str, module: pl.LightningModule, data: Iterable, **more: Any) -> None:
        """Train a stage, see `fit_stage`."""
        s: StageSection = getattr(self.config, name)
        fit_stage(
            module, data, self.logdir / name, steps=s.steps, minutes=s.minutes,
            checkpoint_every=s.checkpoint_every, ema=s.ema, precision=self.config.precision, **more,
        )  # fmt: skip

    def loader(self, dataset: torch.utils.data.Dataset, s: StageSection) -> DataLoader:
        return DataLoader(
            dataset, batch_size=None, num_workers=s.workers, prefetch_factor=4 if s.workers else None
        )

    def save(self, module: torch.nn.Module, name: str) -> str:
        file = self.logdir / f"{name}.safetensors"
        save_model(module, str(file))
        return f"{file}: done"

    def seed(self, name: str) -> int:
        """A new seed each time a stage is resumed, so that it sees new samples."""
        return self.config.seed + steps_done(self.logdir / name)

    def vae(self) -> str:
        vae = self.start().vae if self.config.init else build_vae(self.architecture)
        train = self.residual if isinstance(vae, Autoencoder) else self.kl
        train(vae)
        return self.save(vae, "vae")

    def unseen(self) -> DataLoader:
        """The held-out photos, whole."""
        g, size = Generator().manual_seed(1), self.architecture.image_size
        photos = [random_crop(photo, size, g, 1.0) for photo in self.pictures[1].photos]
        return DataLoader((torch.stack(photos) * 2 - 1).split(16), batch_size=None)

    def kl(self, vae: AutoencoderKL) -> None:
        s = self.config.vae
        composer = self.composer(s.size)
        module = VaeTraining(vae, s.lr, s.steps, s.perceptual, anchored=s.anchored)
        data = self.loader(Drawn(composer.images, s.batch_size, s.steps, self.seed("vae")), s)
        self.fit("vae", module, data, validation=self.unseen())
        images = Drawn(composer.images, 16, 16, self.config.seed + 1)
        normalise_latents(vae, *latent_statistics(vae, (images[i] for i in range(len(images)))))

    def residual(self, vae: Autoencoder) -> None:
        s = self.config.vae
        crops = AutoencoderCrops(self.pictures[0], s.size or self.architecture.image_size)
        images = crops.batch(192, Generator().manual_seed(self.config.seed + 1))
        if not self.config.init:
            vae.start_from(images)
        data = self.loader(Drawn(crops.batch, s.batch_size, s.steps, self.seed("vae")), s)
        self.fit("vae", ResidualTraining(vae, s.lr, s.steps), data, validation=self.unseen())
        vae.normalise(images)

    def encoder(self) -> str:
        s = self.config.encoder
        module = EncoderTraining(build_clip(self.architecture), s.lr, s.steps)
        data = Drawn(self.composer().references, s.batch_size, s.steps, self.seed("encoder"))
        self.fit("encoder", module, self.loader(data, s))
        return self.save(module.clip, "encoder")

    def start(self) -> Base:
        """What the unet stage starts from: a finished base, or the results of the stages before it."""
        if self.config.init:
            return load_base(Path(self.config.init), self.architecture).requires_grad_(True)
        base = Base(self.architecture)
        load_model(base.vae, self.logdir / "vae.safetensors")
        if self.inner is None:
            load_model(base.conditioner.clip, self.logdir / "encoder.safetensors")
        elif not steps_done(self.logdir / "unet"):
            images = self.composer().images(64, Generator().manual_seed(3))
            start_from(base, load_base(*self.inner), images)
        return base

    def unet(self) -> str:
        base = self.start()
        base.conditioner.clip.requires_grad_(not self.config.unet.frozen_encoder)
        train = self.composites if self.config.samples == COMPOSITE else self.insertion
        train(base)
        return self.save(base, "unet")

    def composites(self, base: Base) -> None:
        s, composer = self.config.unet, self.composer()
        fixed = composer.batch(10, Generator().manual_seed(7))
        preview = BasePreview(fixed, self.logdir / "unet", s.preview_every)
        module = BaseTraining(base, s.lr, s.steps, objects=composer.objects, lr_own=s.lr_own)
        self.fit("unet", module, self.buffer(base, composer), callbacks=[preview])

    def insertion(self, base: Base) -> None:
        s, (seen, unseen) = self.config.unet, self.pictures
        size = self.architecture.image_size, self.architecture.reference_size
        composer = InsertionComposer(seen, *size)
        fixed = fixed_samples(InsertionComposer(unseen, *size), unseen.relit[:VALIDATED], VALIDATED)
        measure = InsertionMeasure(self.logdir / "unet")
        module = InsertionTraining(base, s.lr, s.steps, measure, views=composer.views)
        validation = DataLoader(fixed, batch_size=None)  # type: ignore[arg-type]
        self.fit("unet", module, self.buffer(base, composer), validation=validation)

    def buffer(self, base: Base, composer: Composer | InsertionComposer) -> ReplayBuffer:
        s, seed = self.config.unet, self.seed("unet")
        source = self.loader(Drawn(composer.batch, s.batch_size, s.steps, seed), s)
        if s.compile:
            base.unet.compile()
        half = self.config.precision == "bf16-mixed"
        return ReplayBuffer(base, source, s.batch_size, s.capacity, s.reuse, seed, half)

    def export(self) -> str:
        """Write the finished base, fp16, to where the scripts look for it."""
        base = Base(self.architecture)
        load_model(base, self.logdir / "unet.safetensors")
        shards = save_base(base, Path(self.config.export))
        size = sum(file.stat().st_size for file in shards) / 2**20
        return f"{self.config.export}: {size:.1f} MB in {len(shards)} shards"
