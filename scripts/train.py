"""Learn one object: tune the implicit parameters of a base to its few-shot pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from ldm.config.build import (
    finetune_of,
    object_images,
    region_filler_of,
    shown_in_training,
    validation_for,
    validation_plan_of,
)
from ldm.config.cli import TRAINING, TRAINING_HELP, run, say, warnings_in_a_line
from ldm.config.command_forms import PUBLISHED_TRAINING
from ldm.config.schema import Config, Parser
from ldm.data.files import atomic_file, check_folder
from ldm.data.insertset import load_insertset
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.charts import draw_scores
from ldm.models.base import load_base
from ldm.training.callbacks import Previews, Progress, StopOnSignal
from ldm.training.checkpoints import Checkpoints, checkpoints, find_checkpoint, read_checkpoint, run_folder
from ldm.training.datamodule import SampleModule
from ldm.training.encoded_samples import samples_of
from ldm.training.trainer import build_trainer
from ldm.validation.callback import NONE, Validation
from ldm.validation.score import best, reason

TRAIN_FLAGS = """name logdir resume max_steps freeze_model few_shot few_shot_features batch_size accumulate_grad_batches lr
lr_conditioner lr_tokens lr_prior_encoder lr_final warmup_steps drop_context single_view min_snr_gamma cached_samples precision
devices accelerator seed gradient_checkpointing checkpoint_every keep_checkpoints preview_every validate_every hold_out
patience"""
FLAGS = {"dataset-dir": "data.root", "base": "base.path", "workers": "data.workers"} | {
    flag: f"train.{flag}" for flag in TRAIN_FLAGS.split()
}

LATER = {"validate_every": 0, "hold_out": NONE}  # what a run did before it could judge itself


def settings(argv: Sequence[str] | None) -> tuple[Config, Path | None]:
    """Command line => settings, and the checkpoint to resume; a resumed run keeps the settings it had."""
    parser = Parser(
        __doc__ or "", FLAGS, "configs/mini.yaml",
        presets=TRAINING, published=PUBLISHED_TRAINING, short_help=TRAINING_HELP,
    )  # fmt: skip
    _, config = parser.parse_config(argv)
    if not config.train.resume:
        return config, None
    checkpoint = find_checkpoint(Path(config.train.resume))
    kept = read_checkpoint(checkpoint)
    if "optimizer_states" not in kept:
        raise ValueError(f"{checkpoint} cannot be continued; give its run: --resume {run_folder(checkpoint)}")
    recipe = kept["object"]["about"]["recipe"]
    recipe = recipe | {"train": LATER | recipe.get("train", {})}
    return parser.parse_config(argv, recipe)[1], checkpoint


def new_run(config: Config) -> Path:
    """The folder of a new run, which must not hold another one."""
    folder = Path(config.train.logdir) / (config.train.name or Path(config.data.root).resolve().name)
    if checkpoints(folder):
        raise ValueError(
            f"{folder} already holds a run; go on with it (--resume {folder}) or give another --name"
        )
    check_folder(folder, f"--logdir {config.train.logdir}")
    return folder


def write_inputs(config: Config, card: Mapping[str, Any], folder: Path) -> None:
    """Keep with the run, for its reader, the resolved settings and what the model is shown of the object."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(asdict(config)).encode())
    row = torch.cat([card["reference"], *card["crops"]], dim=2)[:3]
    write_picture(folder / "shown.png", Picture(row.permute(1, 2, 0).cpu().numpy()))


def announce_stop() -> None:
    print("\nstopping after this step; once more to stop at once", flush=True)


def report(folder: Path, step: int, stop: StopOnSignal, judging: Validation | None) -> None:
    """Say where the result is and what to do next; exit code 130 after an interruption."""
    if stop.stopped:
        print(f"stopped and saved at step {step}; go on with: bash train.sh --resume {folder}")
        raise SystemExit(130)
    if judging and judging.verdicts:
        early = f"stopped at step {step}, nothing has improved; " if judging.stopped else ""
        print(f"{early}best: {reason(judging.verdicts)}")
        try:
            draw_scores(folder / "judged.png", judging.verdicts, best(judging.verdicts).step)
        except ModuleNotFoundError as error:
            say(f"no judged.png: {error}")
    print(f"{find_checkpoint(folder)}: done; next: bash get_deltas.sh --path {folder}")


def main(argv: Sequence[str] | None = None) -> None:
    config, resumed = settings(argv)
    t, d, a = config.train, config.data, config.base.architecture
    with warnings_in_a_line():
        insertset = load_insertset(Path(d.root))
    folder = run_folder(resumed) if resumed else new_run(config)
    config, plan = validation_plan_of(config, insertset)
    base = load_base(Path(config.base.path), a)
    insertset = plan.learnt
    module = finetune_of(config, base, insertset)
    start = read_checkpoint(resumed)["global_step"] if resumed else 0

    stop = StopOnSignal(Checkpoints(folder, t.checkpoint_every, t.keep_checkpoints), announce_stop)
    callbacks = [Progress(t.batch_size), stop.checkpoints, stop]
    if t.preview_every:
        fill = region_filler_of(config, base, module.card, insertset.few_shot[:1])
        callbacks.append(Previews(fill.preview, folder, t.preview_every))
    if judging := validation_for(config, base, module.card, plan, folder, stop.checkpoints):
        callbacks.append(judging)
    trainer = build_trainer(
        folder, callbacks, max_steps=t.max_steps, accumulate_grad_batches=t.accumulate_grad_batches, precision=t.precision,
        accelerator=t.accelerator, devices=t.devices, start=start,
    )  # fmt: skip
    if trainer.is_global_zero:
        counts = f"{len(insertset.few_shot)} few-shot, {len(insertset.same_category)} same-category pictures"
        seen = f"as in {folder / 'shown.png'}"
        print(f"object: {insertset.root} ({counts}, {seen}), base: {config.base.path}")
        weights = sum(weight.numel() for weight in module.trained_weights().values())
        write_inputs(config, module.card, folder)
        print(f"training {weights:,} weights ({t.freeze_model}), step {start} to {t.max_steps}: {folder}")
        if plan.text():
            print(plan.text())

    bar = partial(tqdm, unit="batch", desc="encoding", disable=not trainer.is_global_zero)
    samples = samples_of(
        base, insertset, trainer.strategy.root_device, seed=t.seed, bank=t.cached_samples, precision=t.precision,
        posterior=t.posterior, single_view=t.single_view, augment=d.augment, augment_odds=d.augment_odds,
        crop_squares=d.crop_squares, mask_resize=d.mask_resize, images=object_images(config),
        shown=shown_in_training(config), progress=bar,
    )  # fmt: skip
    trainer.fit(module, datamodule=SampleModule(samples, t.batch_size, d.workers), ckpt_path=resumed)
    if trainer.is_global_zero:
        report(folder, trainer.global_step, stop, judging)


if __name__ == "__main__":
    run(main)
