"""Train a base from pictures: pack, vae, encoder, unet, export. A stage resumes where it was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_model, save_model
from torch import Generator
from torch.utils.data import DataLoader

from ldm.config.cli import run
from ldm.config.schema import load_config
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
from ldm.pretrain.base import BasePreview, BaseTraining
from ldm.pretrain.composer import Composer, Drawn, random_crop
from ldm.pretrain.encoder import EncoderTraining
from ldm.pretrain.fit_stage import fit_stage, steps_done
from ldm.pretrain.insertion_base import InsertionTraining, start_from
from ldm.pretrain.insertion_measure import InsertionMeasure, fixed_samples
from ldm.pretrain.insertion_samples import InsertionComposer
from ldm.pretrain.latent_bank import LatentBank
from ldm.pretrain.picture_pack import Pack, read_pack, write_pack

HELD_OUT = 64  # photos no stage ever sees
HELD_OUT_RELIT = 25  # every so many-th relit scene is not seen either
VALIDATED = 12  # of the held-out photos, and of the relit scenes
COMPOSITE, INSERTION = "composite", "insertion"


@dataclass(frozen=True)
class PackSection:
    """The one file with all training pictures."""

    sources: str = "../shared/data"
    file: str = "cache/pack.zip"
    short_side: int = 256
    quality: int = 80


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
    anchored: float = 0.5  # vae: share of the training that holds latents to mean colours, less and less
    reuse: int = 3  # unet: how often an encoded sample is drawn
    capacity: int = 4096  # unet: encoded samples kept
    frozen_encoder: bool = False  # unet: the image encoder stays as it is, its outputs are kept in the bank
    lr_own: float = 3e-3  # unet: of the tokens that every object of the pack learns
    ema: float = 0.998
    compile: bool = False
    workers: int = 1
    checkpoint_every: int = 200
    preview_every: int = 400


@dataclass(frozen=True)
class PretrainConfig:
    """All settings; `sizes`: the config whose architecture is trained, `export`: where the base goes.

    `init`: a finished base (checkpoints/mini) that the vae and the unet stage go on from. A unet does not fit
    a VAE that was trained on: train it again, on that VAE.
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
    """The stages of one run; each leaves `<logdir>/<stage>.safetensors` for the next."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.architecture: Architecture = load_config(Path(config.sizes)).base.architecture
        self.logdir = Path(config.logdir)

    def pack(self) -> None:
        p = self.config.pack
        write_pack(Path(p.sources), Path(p.file), p.short_side, p.quality)
        print(f"{p.file}: {Path(p.file).stat().st_size / 2**20:.1f} MB")

    @cached_property
    def pictures(self) -> tuple[Pack, Pack]:
        """What is trained on; the photos and relit scenes that no stage sees."""
        seen, photos = read_pack(Path(self.config.pack.file)).split_photos(HELD_OUT)
        seen, relit = seen.split_relit(HELD_OUT_RELIT)
        return seen, replace(seen, photos=photos, relit=relit)

    def composer(self, size: int = 0) -> Composer:
        a = self.architecture
        return Composer(self.pictures[0], size or a.image_size, a.reference_size)

    def fit(self, name: str, module: pl.LightningModule, data: Iterable, **more: Any) -> None:
        s: StageSection = getattr(self.config, name)
        fit_stage(
            module, data, self.logdir / name, steps=s.steps, minutes=s.minutes,
            checkpoint_every=s.checkpoint_every, ema=s.ema, precision=self.config.precision, **more,
        )  # fmt: skip

    def loader(self, dataset: torch.utils.data.Dataset, s: StageSection) -> DataLoader:
        return DataLoader(
            dataset, batch_size=None, num_workers=s.workers, prefetch_factor=4 if s.workers else None
        )

    def seed(self, name: str) -> int:
        """Another seed for every resumption, so that a resumed stage sees new samples."""
        return self.config.seed + steps_done(self.logdir / name)

    def vae(self) -> None:
        vae = self.start().vae if self.config.init else build_vae(self.architecture)
        train = self.residual if isinstance(vae, Autoencoder) else self.kl
        train(vae)
        save_model(vae, str(self.logdir / "vae.safetensors"))

    def unseen(self) -> DataLoader:
        """The photos that no stage sees, whole."""
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

    def encoder(self) -> None:
        s = self.config.encoder
        module = EncoderTraining(build_clip(self.architecture), s.lr, s.steps)
        data = Drawn(self.composer().references, s.batch_size, s.steps, self.seed("encoder"))
        self.fit("encoder", module, self.loader(data, s))
        save_model(module.clip, str(self.logdir / "encoder.safetensors"))

    def start(self) -> Base:
        """What the unet stage begins with: a finished base, or the results of the stages before it."""
        if self.config.init:
            return load_base(Path(self.config.init), self.architecture).requires_grad_(True)
        base = Base(self.architecture)
        load_model(base.vae, self.logdir / "vae.safetensors")
        if not self.config.inner_from:
            load_model(base.conditioner.clip, self.logdir / "encoder.safetensors")
        elif not steps_done(self.logdir / "unet"):
            other = load_config(Path(self.config.inner_from)).base
            images = self.composer().images(64, Generator().manual_seed(3))
            start_from(base, load_base(Path(other.path), other.architecture), images)
        return base

    def unet(self) -> None:
        s = self.config.unet
        base = self.start()
        base.conditioner.clip.requires_grad_(not s.frozen_encoder)
        train = self.composites if self.config.samples == COMPOSITE else self.insertion
        train(base)
        save_model(base, str(self.logdir / "unet.safetensors"))

    def composites(self, base: Base) -> None:
        s, composer = self.config.unet, self.composer()
        fixed = composer.batch(10, Generator().manual_seed(7))
        preview = BasePreview(fixed, self.logdir / "unet", s.preview_every)
        module = BaseTraining(base, s.lr, s.steps, objects=composer.objects, lr_own=s.lr_own)
        self.fit("unet", module, self.bank(base, composer), callbacks=[preview])

    def insertion(self, base: Base) -> None:
        s, (seen, unseen) = self.config.unet, self.pictures
        size = self.architecture.image_size, self.architecture.reference_size
        composer = InsertionComposer(seen, *size)
        fixed = fixed_samples(InsertionComposer(unseen, *size), unseen.relit[:VALIDATED], VALIDATED)
        measure = InsertionMeasure(self.logdir / "unet")
        module = InsertionTraining(base, s.lr, s.steps, measure, views=composer.views)
        validation = DataLoader(fixed, batch_size=None)
        self.fit("unet", module, self.bank(base, composer), validation=validation)

    def bank(self, base: Base, composer: Composer | InsertionComposer) -> LatentBank:
        s, seed = self.config.unet, self.seed("unet")
        source = self.loader(Drawn(composer.batch, s.batch_size, s.steps, seed), s)
        if s.compile:
            base.unet.compile()
        half = self.config.precision == "bf16-mixed"
        return LatentBank(base, source, s.batch_size, s.capacity, s.reuse, seed, half)

    def export(self) -> None:
        """Write the finished base, fp16, to where the scripts look for it."""
        base = Base(self.architecture)
        load_model(base, self.logdir / "unet.safetensors")
        shards = save_base(base, Path(self.config.export))
        size = sum(file.stat().st_size for file in shards) / 2**20
        print(f"{self.config.export}: {size:.1f} MB in {len(shards)} shards")


STAGES = ("pack", "vae", "encoder", "unet", "export")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"], help="what to run; `all`: one after the other")
    parser.add_argument("--config", default="configs/pretrain_mini.yaml", help="settings file")
    parser.add_argument(
        "settings", nargs="*", metavar="section.key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    config = load_config(Path(args.config), args.settings, PretrainConfig)
    pl.seed_everything(config.seed, verbose=False)
    pretraining = Pretraining(config)
    needed = [stage for stage in STAGES if stage != "encoder" or not config.inner_from]
    for stage in needed if args.stage == "all" else [args.stage]:
        print(f"== {stage}")
        getattr(pretraining, stage)()


if __name__ == "__main__":
    run(main)
