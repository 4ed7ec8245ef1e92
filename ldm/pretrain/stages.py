"""The stages of training a base, from pictures to a folder that loads; a stage resumes where it was stopped.

pack: pictures => one file. vae, unet: training. export: the finished base. matting: the cut-out network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import load_model, save_model
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from ldm.compositing.matting import FILE, SIZE, MattingNetwork, load_matting, save_matting
from ldm.models.architecture import Architecture, build_vae
from ldm.models.autoencoder import Autoencoder
from ldm.models.base import Base, load_base, save_base
from ldm.pretrain.image_ops import random_crop
from ldm.pretrain.insertion_measure import InsertionMeasure, fixed_samples
from ldm.pretrain.insertion_samples import InsertionComposer
from ldm.pretrain.matting_samples import MattingComposer
from ldm.pretrain.networks import AutoencoderCrops, MattingTraining, ResidualTraining, start_from_imagenet
from ldm.pretrain.picture_pack import Pack, read_pack, write_pack
from ldm.pretrain.settings import PretrainConfig, StageSection
from ldm.pretrain.unet_training import BaseTraining, ReplayBuffer, start_from
from ldm.training.trainer import quieten

STAGES = ("pack", "vae", "unet", "export", "matting")
LOG_EVERY = 20  # steps
WARMUP = 40  # steps of a stage that is limited by time
AVERAGED_FROM = 100  # step; before it the averaged weights, which are validated, are those of the start
DECAY, LEAST = 0.35, 0.02  # the last share of its time, in which the rate falls; the share it falls to


class Drawn(Dataset):
    """`steps` items; item i is `draw(count, generator)` and depends on (seed, i) alone."""

    def __init__(self, draw: Callable[[int, Generator], Any], count: int, steps: int, seed: int) -> None:
        self.draw, self.count, self.steps, self.seed = draw, count, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, i: int) -> Any:
        return self.draw(self.count, Generator().manual_seed(self.seed * 10**9 + i))


class Pretraining:
    """The stages of one run; each writes `<logdir>/<stage>.safetensors` for the next.

    `other`: folder and architecture of the base that the config's `start_from` names.
    """

    def __init__(
        self, config: PretrainConfig, architecture: Architecture, other: tuple[Path, Architecture]
    ) -> None:
        self.config, self.architecture, self.other = config, architecture, other
        self.logdir = Path(config.logdir)

    @property
    def needed(self) -> list[str]:
        """Those of STAGES that a base needs."""
        return [stage for stage in STAGES[:-1] if stage != "vae" or not self._shares_vae()]

    def _shares_vae(self) -> bool:
        """Whether `other` has an autoencoder of the same sizes, which is then taken over."""
        return all(
            getattr(self.other[1], f.name) == getattr(self.architecture, f.name)
            for f in fields(Architecture)
            if f.name.startswith("vae_") or f.name in ("autoencoder", "latent_channels", "image_size")
        )

    def run(self, stage: str) -> str:
        """Run one of STAGES => what it has written, in a line."""
        return getattr(self, stage)()

    def pack(self) -> str:
        p = self.config.pack
        write_pack(Path(p.sources), Path(p.file), p.short_side, p.quality)
        return f"{p.file}: {Path(p.file).stat().st_size / 2**20:.1f} MB"

    @cached_property
    def pictures(self) -> tuple[Pack, Pack]:
        """The pack that is trained on, and the same with the held-out photos and relit scenes instead."""
        p = self.config.pack
        return read_pack(Path(p.file)).split(p.held_out, p.held_out_relit)

    @property
    def sizes(self) -> tuple[int, int]:
        """Pixels a side of an image and of a reference."""
        return self.architecture.image_size, self.architecture.reference_size

    def crops(self, size: int = 0) -> AutoencoderCrops:
        """Crops of the trained pictures, of the architecture's size unless another is given."""
        return AutoencoderCrops(self.pictures[0], size or self.architecture.image_size)

    def fit(
        self, name: str, module: pl.LightningModule, data: Iterable, validation: Iterable | None = None
    ) -> None:
        """Train from the last checkpoint to the stage's steps or minutes; ends with averaged weights."""
        s: StageSection = getattr(self.config, name)
        folder = self.logdir / name
        saving = ModelCheckpoint(
            folder,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=s.checkpoint_every,
            enable_version_counter=False,  # a folder that was moved would get a last-v1.ckpt
        )
        averaging = EMAWeightAveraging(decay=s.ema, update_starting_at_step=min(AVERAGED_FROM, s.steps // 3))
        limit = [TimeLimit(s.minutes)] if s.minutes else []
        quieten()
        trainer = pl.Trainer(
            max_steps=s.steps,
            max_epochs=-1,
            precision=self.config.precision,  # type: ignore[arg-type]
            devices=1,  # several would train on the same samples
            logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
            callbacks=[saving, averaging, *limit],
            val_check_interval=s.checkpoint_every if validation else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            log_every_n_steps=LOG_EVERY,
            enable_model_summary=False,
        )
        trainer.fit(module, data, validation, ckpt_path=last_checkpoint(folder), weights_only=True)

    def loader(self, dataset: Dataset, s: StageSection) -> DataLoader:
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
        s, finished = self.config.vae, load_base(*self.other) if self._shares_vae() else None
        vae = build_vae(self.architecture) if finished is None else finished.vae.requires_grad_(True)
        if not isinstance(vae, Autoencoder):
            raise ValueError(
                f"{self.config.sizes}: base.architecture.autoencoder is {self.architecture.autoencoder}; "
                "only a residual one is trained here"
            )
        crops = self.crops(s.size)
        images = crops.batch(192, Generator().manual_seed(self.config.seed + 1))
        if finished is None:
            vae.start_from(images)
        data = self.loader(Drawn(crops.batch, s.batch_size, s.steps, self.seed("vae")), s)
        self.fit("vae", ResidualTraining(vae, s.lr, s.steps), data, validation=self._held_out_photos())
        vae.normalise(images)
        return self.save(vae, "vae")

    def _held_out_photos(self) -> DataLoader:
        """The largest square of every held-out photo, in batches [b,3,S,S] in [-1,1]."""
        g, size = Generator().manual_seed(1), self.architecture.image_size
        photos = [random_crop(photo, size, g, 1.0) for photo in self.pictures[1].photos]
        return DataLoader((torch.stack(photos) * 2 - 1).split(16), batch_size=None)

    def start(self) -> Base:
        """What the unet stage starts from: the finished base, and the result of the vae stage."""
        base, other = Base(self.architecture), load_base(*self.other)
        same = replace(other.architecture, name=base.architecture.name) == base.architecture
        own = self.logdir / "vae.safetensors"
        if same:
            base.load_state_dict(other.state_dict())
        if own.is_file() or not self._shares_vae():
            load_model(base.vae, own)
        else:
            base.vae.load_state_dict(other.vae.state_dict())
        if not same and not steps_done(self.logdir / "unet"):
            start_from(base, other, self.crops().batch(64, Generator().manual_seed(3)))
        return base

    def unet(self) -> str:
        s, (trained, held_out) = self.config.unet, self.pictures
        base = self.start()
        base.conditioner.clip.requires_grad_(not s.frozen_encoder)
        scenes = held_out.relit[: s.validated]
        fixed = fixed_samples(InsertionComposer(held_out, *self.sizes), scenes, holes=s.validated)
        module = BaseTraining(base, s.lr, s.steps, InsertionMeasure(self.logdir / "unet"))
        validation = DataLoader(fixed, batch_size=None)
        self.fit("unet", module, self._buffer(base, trained), validation=validation)
        return self.save(base, "unet")

    def _buffer(self, base: Base, pictures: Pack) -> ReplayBuffer:
        s, seed = self.config.unet, self.seed("unet")
        composer = InsertionComposer(pictures, *self.sizes)
        source = self.loader(Drawn(composer.batch, s.batch_size, s.steps, seed), s)
        half = self.config.precision == "bf16-mixed"
        return ReplayBuffer(base, source, s.batch_size, s.capacity, s.reuse, seed, half)

    def matting(self) -> str:
        """Train the matting network and write it, fp16, beside the base."""
        s, (trained, held_out) = self.config.matting, (pack.split_layers() for pack in self.pictures)
        if s.start_from:
            network = load_matting(Path(s.start_from)).requires_grad_(True)
        else:
            network = MattingNetwork()
            start_from_imagenet(network)
        composer = MattingComposer(held_out[1], [s.size or SIZE])
        unseen = Drawn(composer.batch, s.validated, 5, self.config.seed)
        validation = DataLoader([unseen[i] for i in range(len(unseen))], batch_size=None)
        data = Drawn(MattingComposer(trained[0]).batch, s.batch_size, s.steps, self.seed("matting"))
        module = MattingTraining(network, s.lr, s.steps)
        self.fit("matting", module, self.loader(data, s), validation=validation)
        self.save(network, "matting")
        target = Path(self.config.export) / FILE
        save_matting(network, target)
        return f"{target}: {target.stat().st_size / 2**20:.1f} MB"

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


def rate(progress: float, step: int) -> float:
    """Share of the peak rate after `progress` (0-1) of the time: warm-up, constant, then down to LEAST."""
    return min(1.0, (step + 1) / WARMUP, max(LEAST, (1 - progress) / DECAY))


class TimeLimit(Timer):
    """Ends a stage after so many minutes over all its resumed runs; the learning rate depends on the time."""

    def __init__(self, minutes: float) -> None:
        super().__init__(timedelta(minutes=minutes), verbose=False)
        self.seconds = 60 * minutes

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        share = rate(self.time_elapsed() / self.seconds, trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
