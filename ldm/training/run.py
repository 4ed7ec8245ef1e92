"""One training run: a base and an object's pictures => the tuned weights, or the object file.

scripts/train.py adds callbacks, resuming and messages; evaluation calls `learn_to_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Generator, Tensor
from tqdm import tqdm

from ldm.data.files import atomic_file
from ldm.data.image import to_bytes
from ldm.data.insertset import InsertSet
from ldm.data.object_crops import ObjectImages, paper_crops
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.models.architecture import Architecture
from ldm.models.base import Base, base_fingerprint, load_base
from ldm.objects.delta import save
from ldm.objects.few_shot import prepare_few_shot
from ldm.objects.object_file import ObjectMetadata, preview_of
from ldm.training.callbacks import Progress
from ldm.training.checkpoints import CONFIG, MARK, read_checkpoint
from ldm.training.datamodule import SampleModule
from ldm.training.encoded_samples import EncodedSamples, SampleOptions, Shown, grey, training_pairs
from ldm.training.extract import object_of
from ldm.training.finetune import FILES, FineTune, Tuning
from ldm.training.trainer import LoopOptions, build_trainer


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """All that decides what a run learns from an object's pictures.

    `images`: how the base is shown the object; `shown`: what the masked region of a sample shows; `recipe`:
    the run's settings as plain data, kept in its checkpoints and in the object file.
    """

    tuning: Tuning = field(default_factory=Tuning)
    samples: SampleOptions = field(default_factory=SampleOptions)
    loop: LoopOptions = field(default_factory=LoopOptions)
    images: ObjectImages | None = None
    shown: Shown = grey
    recipe: Mapping[str, Any] = field(default_factory=dict)


def build_learner(base: Base, insertset: InsertSet, run: TrainingRun) -> FineTune:
    """Add the few-shot part to `base`, in place, and wrap it for training."""
    t, size = run.tuning, base.architecture.reference_size
    images = run.images or ObjectImages(size)
    crops, as_in_paper = images.few_shot(insertset), paper_crops(insertset, size)
    seen = as_in_paper if t.few_shot == "linear" else crops
    prepare_few_shot(base, seen, t.few_shot, t.few_shot_features, Generator().manual_seed(run.samples.seed))
    reference = images.own_reference(insertset, crops)[0]
    card = {
        "about": asdict(_metadata(base, insertset, crops, run)),
        "reference": to_bytes(reference),
        "crops": to_bytes(crops),
        "paper_crops": to_bytes(as_in_paper),
        FILES: insertset.digests(),
        "pictures": [sample.image.stem for sample in insertset.few_shot],
        "few_shot_pixels": t.few_shot_features,
        "stored": images.stored,
    }
    return FineTune(base, t, run.samples, shown=run.shown, card=card)


def _metadata(base: Base, insertset: InsertSet, crops: Tensor, run: TrainingRun) -> ObjectMetadata:
    return ObjectMetadata(
        base=base_fingerprint(base),
        architecture=base.architecture.name,
        freeze_model=run.tuning.freeze_model,
        few_shot=run.tuning.few_shot,
        few_shot_count=0 if run.tuning.few_shot == "none" else len(crops),
        recipe=run.recipe,
        preview=preview_of(insertset.reference),
    )


def train(
    module: FineTune,
    insertset: InsertSet,
    run: TrainingRun,
    folder: Path,
    callbacks: Sequence[pl.Callback] = (),
    resume: Path | None = None,
    announce: Callable[[int], None] = lambda step: None,
) -> pl.Trainer:
    """Train until `max_steps`; logs go to `folder`, checkpoints to wherever a callback puts them.

    `resume` is a checkpoint of the same run. `announce` is called with the first step, on one device only,
    when everything is built and before samples are encoded.
    """
    start = read_checkpoint(resume)["global_step"] if resume else 0
    every = [Progress(run.loop.batch_size), *callbacks]
    trainer = build_trainer(folder, every, run.tuning.max_steps, run.loop, start)
    if trainer.is_global_zero:
        announce(start)
    samples = training_pairs(module.base.architecture, insertset, run.samples, run.images)
    if run.samples.cached_samples:
        base = module.base.to(trainer.strategy.root_device)
        hidden = not trainer.is_global_zero
        samples = EncodedSamples(
            base, samples, run.samples, run.shown, run.loop.precision,
            progress=lambda numbers: tqdm(numbers, unit="batch", desc="encoding", disable=hidden),
        )  # fmt: skip
    data = SampleModule(samples, run.loop.batch_size, run.loop.workers)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit as error:  # Lightning turns an interruption into exit code 1
        raise KeyboardInterrupt from error
    return trainer


def learn_to_file(
    path: Path, architecture: Architecture, insertset: InsertSet, run: TrainingRun, file: Path
) -> None:
    """Learn on a base read from `path` and write the object file; logs go into a folder beside it."""
    module = build_learner(load_base(path, architecture), insertset, run)
    trainer = train(module, insertset, run, file.with_suffix(""))
    checkpoint: dict[str, Any] = {"global_step": trainer.global_step}
    module.on_save_checkpoint(checkpoint)
    save(object_of(checkpoint, load_base(path, architecture)), file)


def write_inputs(card: Mapping[str, Any], folder: Path) -> None:
    """Write what a run starts from, for its reader: config.yaml, and shown.png (reference and crops)."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / CONFIG) as file:
        file.write(MARK.encode() + OmegaConf.to_yaml(card["about"]["recipe"]).encode())
    row = torch.cat([card["reference"], *card["crops"]], dim=2)[:3]
    write_picture(folder / "shown.png", Picture(row.permute(1, 2, 0).cpu().numpy()))
