"""Train a base from pictures: pack, vae, encoder, unet, export. A stage resumes where it was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_model, save_model
from torch import Generator
from torch.utils.data import DataLoader

from ldm.config.cli import run
from ldm.config.schema import load_config
from ldm.models.architecture import Architecture, build_clip, build_vae
from ldm.models.base import Base, load_base, save_base
from ldm.pretrain.autoencoder import VaeTraining, latent_statistics, normalise_latents
from ldm.pretrain.base import BasePreview, BaseTraining
from ldm.pretrain.composer import Composer, Drawn, random_crop
from ldm.pretrain.encoder import EncoderTraining
from ldm.pretrain.fit_stage import fit_stage, steps_done
from ldm.pretrain.latent_bank import LatentBank
from ldm.pretrain.picture_pack import read_pack, write_pack

HELD_OUT = 64  # photos no stage ever sees


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

    `size`: the side of its pictures, 0 for the architecture's. A VAE with attention in its middle loses about
    3 dB at another size than it was trained at.
    """

    steps: int = 1000
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
    """

    sizes: str = "configs/mini.yaml"
    logdir: str = "logs/pretrain_mini"
    export: str = "checkpoints/mini"
    init: str = ""
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

    def composer(self, size: int = 0) -> Composer:
        pack, self.held_out = read_pack(Path(self.config.pack.file)).split_photos(HELD_OUT)
        return Composer(pack, size or self.architecture.image_size, self.architecture.reference_size)

    def fit(self, name: str, module: pl.LightningModule, data: Iterable, **more: Any) -> None:
        s: StageSection = getattr(self.config, name)
        fit_stage(
            module, data, self.logdir / name, steps=s.steps, checkpoint_every=s.checkpoint_every,
            ema=s.ema, precision=self.config.precision, **more,
        )  # fmt: skip

    def loader(self, dataset: torch.utils.data.Dataset, s: StageSection) -> DataLoader:
        return DataLoader(
            dataset, batch_size=None, num_workers=s.workers, prefetch_factor=4 if s.workers else None
        )

    def seed(self, name: str) -> int:
        """Another seed for every resumption, so that a resumed stage sees new samples."""
        return self.config.seed + steps_done(self.logdir / name)

    def vae(self) -> None:
        s = self.config.vae
        composer = self.composer(s.size)
        size = self.architecture.image_size
        g = Generator().manual_seed(1)
        unseen = torch.stack([random_crop(photo, size, g, 1.0) for photo in self.held_out]) * 2 - 1
        vae = self.start().vae if self.config.init else build_vae(self.architecture)
        module = VaeTraining(vae, s.lr, s.steps, s.perceptual, anchored=s.anchored)
        data = self.loader(Drawn(composer.images, s.batch_size, s.steps, self.seed("vae")), s)
        self.fit("vae", module, data, validation=DataLoader(unseen.split(16), batch_size=None))
        images = Drawn(composer.images, 16, 16, self.config.seed + 1)
        normalise_latents(module.vae, *latent_statistics(module.vae, (images[i] for i in range(len(images)))))
        save_model(module.vae, str(self.logdir / "vae.safetensors"))

    def encoder(self) -> None:
        s = self.config.encoder
        module = EncoderTraining(build_clip(self.architecture), s.lr, s.steps)
        data = Drawn(self.composer().references, s.batch_size, s.steps, self.seed("encoder"))
        self.fit("encoder", module, self.loader(data, s))
        save_model(module.clip, str(self.logdir / "encoder.safetensors"))

    def start(self) -> Base:
        """What the unet stage begins with: a finished base, or the results of the first two stages."""
        if self.config.init:
            return load_base(Path(self.config.init), self.architecture).requires_grad_(True)
        base = Base(self.architecture)
        load_model(base.vae, self.logdir / "vae.safetensors")
        load_model(base.conditioner.clip, self.logdir / "encoder.safetensors")
        return base

    def unet(self) -> None:
        s = self.config.unet
        base = self.start()
        base.conditioner.clip.requires_grad_(not s.frozen_encoder)
        composer = self.composer()
        seed = self.seed("unet")
        source = self.loader(Drawn(composer.batch, s.batch_size, s.steps, seed), s)
        bank = LatentBank(base, source, s.batch_size, s.capacity, s.reuse, seed)
        fixed = composer.batch(10, Generator().manual_seed(7))
        preview = BasePreview(fixed, self.logdir / "unet", s.preview_every)
        module = BaseTraining(base, s.lr, s.steps, objects=composer.objects, lr_own=s.lr_own)
        if s.compile:
            base.unet.compile()
        self.fit("unet", module, bank, callbacks=[preview])
        save_model(base, str(self.logdir / "unet.safetensors"))

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
    for stage in STAGES if args.stage == "all" else [args.stage]:
        print(f"== {stage}")
        getattr(pretraining, stage)()


if __name__ == "__main__":
    run(main)
