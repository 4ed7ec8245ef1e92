"""Learn one object: tune the implicit parameters of a base to its few-shot pictures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ldm.config.process import run, starting

with starting():
    from pytorch_lightning.utilities import rank_zero_only

    from ldm.config.build_training import training_callbacks, training_run_of, validation_plan_of
    from ldm.config.cli import TRAINING, TRAINING_HELP, flags
    from ldm.config.parser import SettingsParser
    from ldm.config.schema import Config, check_resumed, load_config
    from ldm.data.files import locked_folder, sweep
    from ldm.data.insertset import load_insertset
    from ldm.models.base import load_base
    from ldm.training.checkpoints import (
        Checkpoints,
        best_checkpoint,
        find_checkpoint,
        new_run,
        resumable,
        run_folder,
    )
    from ldm.training.finetune import FILES
    from ldm.training.run import build_learner, train, write_inputs
    from ldm.training.trainer import StopOnSignal, check_devices
    from ldm.validation.callback import Validation

TRAIN_FLAGS = """name logdir resume max_steps freeze_model few_shot few_shot_features batch_size
accumulate_grad_batches lr lr_conditioner lr_tokens lr_prior_encoder lr_final warmup_steps drop_context
single_view loss cached_samples precision devices accelerator seed gradient_checkpointing
checkpoint_every keep_checkpoints preview_every validate_every hold_out patience"""
FLAGS = {"dataset-dir": "data.root", "base": "base.path"}
FLAGS |= flags("data", "workers") | flags("train", TRAIN_FLAGS)
MEMORY = "give a smaller --batch_size, or --preset 8gb"
STOPPING = "\nstopping after this step; once more to stop at once"


def settings(argv: Sequence[str] | None) -> tuple[Config, Path | None]:
    """Command line => settings, and the checkpoint to resume, whose run keeps its settings but a few."""
    parser = SettingsParser(
        __doc__ or "", FLAGS, "configs/mini.yaml",
        presets=TRAINING, short_help=TRAINING_HELP,
    )  # fmt: skip
    _, config = parser.parse_config(argv)
    if not config.train.resume:
        return config, None
    checkpoint, recipe = resumable(Path(config.train.resume))
    _, config = parser.parse_config(argv, recipe)
    own = load_config(recipe)
    check_resumed(own, config)
    return replace(config, train=replace(config.train, hold_out=own.train.hold_out)), checkpoint


def report(folder: Path, step: int, stopped: bool, validation: Validation | None) -> None:
    """Print where the result is and what to do next; exit code 130 after an interruption."""
    word = shlex.quote(str(folder))
    if stopped:
        print(f"stopped and saved at step {step}; resume with: bash train.sh --resume {word}")
        raise SystemExit(130)
    if validation and (found := best_checkpoint(folder)):
        early = f"stopped at step {step}, no more improvement; " if validation.stopped else ""
        print(f"{early}best: {found[1]}")
    print(f"{find_checkpoint(folder)}: done; next: bash get_deltas.sh --path {word}")


def learn(config: Config, resumed: Path | None) -> None:
    """Build, announce, train, report."""
    t, root = config.train, Path(config.data.root)
    insertset = load_insertset(root)
    check_devices(t.accelerator, t.devices)
    folder = run_folder(resumed) if resumed else new_run(Path(t.logdir), t.name or root.resolve().name)
    config, plan = validation_plan_of(config, insertset)
    base = load_base(Path(config.base.path), config.base.architecture)
    training = training_run_of(config)
    module = build_learner(base, plan.training, training)
    module.card[FILES] = insertset.digests()  # those of held-out pictures, too

    def announce(step: int) -> None:
        few_shot, same_category = len(plan.training.few_shot), len(plan.training.same_category)
        counts = f"{few_shot} few-shot, {same_category} same-category pictures, as in {folder / 'shown.png'}"
        write_inputs(module.card, folder)
        weights = sum(weight.numel() for weight in module.trained_weights().values())
        print(f"object: {root} ({counts}), base: {config.base.path}")
        print(f"training {weights:,} weights ({t.freeze_model}), step {step} to {t.max_steps}: {folder}")
        if plan.text():
            print(plan.text())

    saving = Checkpoints(folder, t.checkpoint_every, t.keep_checkpoints)
    stop = StopOnSignal(saving, lambda: print(STOPPING, flush=True))
    # saved last, so that nothing else of a step is missing when a run is resumed there
    callbacks = [*training_callbacks(config, module, plan, folder, saving), stop, saving]
    own = locked_folder(folder, "wait for it, or give another --name")
    with own if rank_zero_only.rank == 0 else nullcontext():
        for part in (folder, *folder.glob("*/")):
            sweep(part)
        if not resumed:
            new_run(folder.parent, folder.name)  # another process may have written it since
        trainer = train(module, plan.training, training, folder, callbacks, resumed, announce)
    if trainer.is_global_zero:
        validation = next((callback for callback in callbacks if isinstance(callback, Validation)), None)
        report(folder, trainer.global_step, stop.stopped, validation)


def main(argv: Sequence[str] | None = None) -> None:
    learn(*settings(argv))


if __name__ == "__main__":
    run(main, MEMORY)
