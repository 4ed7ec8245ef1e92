"""Learn one object: tune the implicit parameters of a base to its few-shot pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from sys import maxsize

from omegaconf import OmegaConf
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.config import Config, Parser, run
from ldm.data.atomic import atomic_file
from ldm.data.insertset import InsertSet, load_insertset
from ldm.data.pairs import Pairs
from ldm.models.base import Base, load_base
from ldm.training.batches import Batches
from ldm.training.callbacks import Progress, StopOnSignal
from ldm.training.checkpoints import Checkpoints, checkpoints, find_checkpoint, read_checkpoint, run_folder
from ldm.training.finetune import FineTune
from ldm.training.learner import build_learner
from ldm.training.previews import Previews, preview_scene
from ldm.training.samples import Bank
from ldm.training.trainer import build_trainer

TRAIN_FLAGS = """name logdir resume max_steps freeze_model few_shot few_shot_features batch_size accumulate lr
lr_conditioner lr_tokens lr_final warmup drop_context min_snr bank precision devices accelerator seed
checkpoint_every keep preview_every"""
FLAGS = {"dataset-dir": "data.root", "base": "base.path", "workers": "data.workers"} | {
    flag: f"train.{flag}" for flag in TRAIN_FLAGS.split()
}


def settings(argv: Sequence[str] | None) -> tuple[Config, Path | None]:
    """Command line => settings, and the checkpoint to resume; a resumed run keeps the settings it had."""
    parser = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    _, config = parser.parse_config(argv)
    if not config.train.resume:
        return config, None
    checkpoint = find_checkpoint(Path(config.train.resume))
    recipe = read_checkpoint(checkpoint)["object"]["about"]["recipe"]
    return parser.parse_config(argv, recipe)[1], checkpoint


def new_run(config: Config) -> Path:
    """The folder of a new run, which must not hold another one."""
    folder = Path(config.train.logdir) / (config.train.name or Path(config.data.root).resolve().name)
    if checkpoints(folder):
        raise ValueError(
            f"{folder} already holds a run; go on with it (--resume {folder}) or give another --name"
        )
    return folder


def module_for(config: Config, base: Base, insertset: InsertSet) -> FineTune:
    """The base with its few-shot part, ready to be tuned."""
    t = config.train
    rates = {"lr": t.lr, "lr_conditioner": t.lr_conditioner, "lr_tokens": t.lr_tokens}
    return build_learner(
        base,
        insertset,
        freeze_model=t.freeze_model,
        few_shot=t.few_shot,
        few_shot_features=t.few_shot_features,
        seed=t.seed,
        recipe=asdict(config),
        weight_decay=t.weight_decay,
        warmup=t.warmup,
        lr_final=t.lr_final,
        min_snr=t.min_snr,
        max_steps=t.max_steps,
        drop_context=t.drop_context,
        **rates,
    )


def write_settings(config: Config, folder: Path) -> None:
    """Keep the resolved settings with the run, for its reader."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(asdict(config)).encode())


def announce_stop() -> None:
    print("\nstopping after this step; once more to stop at once", flush=True)


def report(folder: Path, step: int, stopped: bool) -> None:
    """Say where the result is and what to do next; exit code 130 after an interruption."""
    if stopped:
        print(f"stopped and saved at step {step}; go on with: bash train.sh --resume {folder}")
        raise SystemExit(130)
    print(f"{find_checkpoint(folder)}: done; next: bash get_deltas.sh --path {folder}")


def main(argv: Sequence[str] | None = None) -> None:
    config, resumed = settings(argv)
    t, a = config.train, config.base.architecture
    sizes = (a.image_size, a.reference_size)
    insertset = load_insertset(Path(config.data.root))
    folder = run_folder(resumed) if resumed else new_run(config)
    base = load_base(Path(config.base.path), a)
    module = module_for(config, base, insertset)
    start = read_checkpoint(resumed)["global_step"] if resumed else 0

    stop = StopOnSignal(Checkpoints(folder, t.checkpoint_every, t.keep), announce_stop)
    callbacks = [Progress(t.batch_size), stop.checkpoints, stop]
    if t.preview_every:
        callbacks.append(Previews(preview_scene(insertset, *sizes, t.seed), folder, t.preview_every, t.seed))
    trainer = build_trainer(
        folder, callbacks, max_steps=t.max_steps, accumulate=t.accumulate, precision=t.precision,
        accelerator=t.accelerator, devices=t.devices, start=start,
    )  # fmt: skip
    if trainer.is_global_zero:
        write_settings(config, folder)
        counts = f"{len(insertset.few_shot)} few-shot, {len(insertset.same_category)} same-category pictures"
        print(f"object: {insertset.root} ({counts}), base: {config.base.path}")
        weights = sum(weight.numel() for weight in module.trained_weights().values())
        print(f"training {weights:,} weights ({t.freeze_model}), step {start} to {t.max_steps}: {folder}")

    pairs = Pairs(insertset, *sizes, seed=t.seed, length=maxsize, augment=config.data.augment)
    samples: Dataset = pairs
    if t.bank:
        bar = partial(tqdm, unit="batch", desc="encoding", disable=not trainer.is_global_zero)
        samples = Bank(base.to(trainer.strategy.root_device), pairs, t.bank, t.seed, t.precision, bar)
    trainer.fit(module, datamodule=Batches(samples, t.batch_size, config.data.workers), ckpt_path=resumed)
    if trainer.is_global_zero:
        report(folder, trainer.global_step, stop.stopped)


if __name__ == "__main__":
    run(main)
