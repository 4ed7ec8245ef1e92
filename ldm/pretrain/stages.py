"""The stages of training a base, from pictures to a folder that loads; a stage resumes where it was stopped.

pack: pictures => one file. vae, encoder, unet: training, on the results of the stages before. export: the
finished base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import load_model, save_model
from torch import Generator
from torch.utils.data import DataLoader

from ldm.models.architecture import Architecture, build_clip, build_vae
from ldm.models.base import Base, load_base, save_base
from ldm.pretrain.autoencoder import VaeTraining, latent_statistics, normalise_latents
from ldm.pretrain.base import BasePreview, BaseTraining, ReplayBuffer
from ldm.pretrain.composer import Composer, Drawn, random_crop
from ldm.pretrain.encoder import EncoderTraining
from ldm.pretrain.picture_pack import read_pack, write_pack
from ldm.training.trainer import quieten

STAGES = ("pack", "vae", "encoder", "unet", "export")
LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class PackSection:
    """The file with all training pictures."""

    sources: str = "../shared/data"
    file: str = "cache/pack.zip"
    short_side: int = 256
    quality: int = 80
    held_out: int = 64  # photos that no stage trains on


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
    """The stages of one run; each writes `<logdir>/<stage>.safetensors` for the next."""

    def __init__(self, config: PretrainConfig, architecture: Architecture) -> None:
        self.config, self.architecture = config, architecture
        self.logdir = Path(config.logdir)

    def run(self, stage: str) -> str:
        """Run one of STAGES => what it has written, in a line."""
        return getattr(self, stage)()

    def pack(self) -> str:
        p = self.config.pack
        write_pack(Path(p.sources), Path(p.file), p.short_side, p.quality)
        return f"{p.file}: {Path(p.file).stat().st_size / 2**20:.1f} MB"

    def composer(self, size: int = 0) -> Composer:
        pack, self.held_out = read_pack(Path(self.config.pack.file)).split_photos(self.config.pack.held_out)
        return Composer(pack, size or self.architecture.image_size, self.architecture.reference_size)

    def fit(
        self,
        name: str,
        module: pl.LightningModule,
        data: Iterable,
        validation: Iterable | None = None,
        callbacks: Sequence[pl.Callback] = (),
    ) -> None:
        """Train, from the last checkpoint if any, to the stage's steps; then use averaged weights."""
        s: StageSection = getattr(self.config, name)
        folder = self.logdir / name
        saving = ModelCheckpoint(
            folder,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=s.checkpoint_every,
            enable_version_counter=False,  # a folder that was moved would get a last-v1.ckpt
        )
        averaging = EMAWeightAveraging(decay=s.ema, update_starting_at_step=min(500, s.steps // 3))
        quieten()
        trainer = pl.Trainer(
            max_steps=s.steps,
            max_epochs=-1,
            precision=self.config.precision,  # type: ignore[arg-type]
            logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
            callbacks=[saving, averaging, *callbacks],
            val_check_interval=s.checkpoint_every if validation else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            log_every_n_steps=LOG_EVERY,
            enable_model_summary=False,
        )
        trainer.fit(module, data, validation, ckpt_path=last_checkpoint(folder), weights_only=True)

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
        return self.save(module.vae, "vae")

    def encoder(self) -> str:
        s = self.config.encoder
        module = EncoderTraining(build_clip(self.architecture), s.lr, s.steps)
        data = Drawn(self.composer().references, s.batch_size, s.steps, self.seed("encoder"))
        self.fit("encoder", module, self.loader(data, s))
        return self.save(module.clip, "encoder")

    def start(self) -> Base:
        """What the unet stage starts from: a finished base, or the results of the first two stages."""
        if self.config.init:
            return load_base(Path(self.config.init), self.architecture).requires_grad_(True)
        base = Base(self.architecture)
        load_model(base.vae, self.logdir / "vae.safetensors")
        load_model(base.conditioner.clip, self.logdir / "encoder.safetensors")
        return base

    def unet(self) -> str:
        s = self.config.unet
        base = self.start()
        base.conditioner.clip.requires_grad_(not s.frozen_encoder)
        composer = self.composer()
        seed = self.seed("unet")
        source = self.loader(Drawn(composer.batch, s.batch_size, s.steps, seed), s)
        buffer = ReplayBuffer(base, source, s.batch_size, s.capacity, s.reuse, seed)
        fixed = composer.batch(10, Generator().manual_seed(7))
        preview = BasePreview(fixed, self.logdir / "unet", s.preview_every)
        module = BaseTraining(base, s.lr, s.steps, objects=composer.objects, lr_own=s.lr_own)
        if s.compile:
            base.unet.compile()
        self.fit("unet", module, buffer, callbacks=[preview])
        return self.save(base, "unet")

    def export(self) -> str:
        """Write the finished base, fp16, to where the scripts look for it."""
        base = Base(self.architecture)
        load_model(base, self.logdir / "unet.safetensors")
        shards = save_base(base, Path(self.config.export))
        size = sum(file.stat().st_size for file in shards) / 2**20
        return f"{self.config.export}: {size:.1f} MB in {len(shards)} shards"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a stage resumes; None if it is new."""
    file = folder / "last.ckpt"
    return file if file.exists() else None


def steps_done(folder: Path) -> int:
    """Steps up to the last checkpoint."""
    file = last_checkpoint(folder)
    return torch.load(file, map_location="cpu", weights_only=True)["global_step"] if file else 0
