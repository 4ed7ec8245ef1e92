"""Learn one object: tune the implicit parameters of a base to its few-shot pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ldm.config.build import training_callbacks, training_run_of, validation_plan_of
from ldm.config.cli import TRAINING, run, say, warnings_in_a_line
from ldm.config.command_forms import PUBLISHED_TRAINING
from ldm.config.schema import Config, Parser
from ldm.data.files import check_folder
from ldm.data.insertset import load_insertset
from ldm.evaluation.charts import draw_scores
from ldm.models.base import load_base
from ldm.training.callbacks import StopOnSignal
from ldm.training.checkpoints import Checkpoints, checkpoints, find_checkpoint, read_checkpoint, run_folder
from ldm.training.run import build_learner, train, write_inputs
from ldm.validation.callback import Validation
from ldm.validation.score import best, reason

TRAIN_FLAGS = """name logdir resume max_steps freeze_model few_shot few_shot_features batch_size
accumulate_grad_batches lr lr_conditioner lr_tokens lr_prior_encoder lr_final warmup_steps drop_context
single_view min_snr_gamma cached_samples precision devices accelerator seed gradient_checkpointing
checkpoint_every keep_checkpoints preview_every validate_every hold_out patience"""
FLAGS = {"dataset-dir": "data.root", "base": "base.path", "workers": "data.workers"} | {
    flag: f"train.{flag}" for flag in TRAIN_FLAGS.split()
}


def settings(argv: Sequence[str] | None) -> tuple[Config, Path | None]:
    """Command line => settings, and the checkpoint to resume; a resumed run keeps the settings it had."""
    parser = Parser(__doc__ or "", FLAGS, "configs/mini.yaml", presets=TRAINING, published=PUBLISHED_TRAINING)
    _, config = parser.parse_config(argv)
    if not config.train.resume:
        return config, None
    checkpoint = find_checkpoint(Path(config.train.resume))
    saved = read_checkpoint(checkpoint)
    if "optimizer_states" not in saved:
        raise ValueError(f"{checkpoint} cannot be resumed; give its run: --resume {run_folder(checkpoint)}")
    return parser.parse_config(argv, saved["object"]["about"]["recipe"])[1], checkpoint


def new_run(config: Config) -> Path:
    """The folder of a new run, which must not hold another one."""
    folder = Path(config.train.logdir) / (config.train.name or Path(config.data.root).resolve().name)
    if checkpoints(folder):
        raise ValueError(f"{folder} already holds a run; --resume {folder} or give another --name")
    check_folder(folder, f"--logdir {config.train.logdir}")
    return folder


def report(folder: Path, step: int, stopped: bool, validation: Validation | None) -> None:
    """Print where the result is and what to do next; exit code 130 after an interruption."""
    if stopped:
        print(f"stopped and saved at step {step}; resume with: bash train.sh --resume {folder}")
        raise SystemExit(130)
    if validation and validation.scores:
        early = f"stopped at step {step}, no more improvement; " if validation.stopped else ""
        print(f"{early}best: {reason(validation.scores)}")
        try:
            draw_scores(folder / "validation.png", validation.scores, best(validation.scores).step)
        except ModuleNotFoundError as error:
            say(f"no validation.png: {error}")
    print(f"{find_checkpoint(folder)}: done; next: bash get_deltas.sh --path {folder}")


def main(argv: Sequence[str] | None = None) -> None:
    config, resumed = settings(argv)
    with warnings_in_a_line():
        insertset = load_insertset(Path(config.data.root))
        folder = run_folder(resumed) if resumed else new_run(config)
        config, plan = validation_plan_of(config, insertset)
        base = load_base(Path(config.base.path), config.base.architecture)
        training = training_run_of(config)
    module, t = build_learner(base, plan.learnt, training), config.train

    def announce(step: int) -> None:
        counts = (
            f"{len(plan.learnt.few_shot)} few-shot, {len(plan.learnt.same_category)} same-category pictures"
        )
        print(
            f"object: {plan.learnt.root} ({counts}, as in {folder / 'shown.png'}), base: {config.base.path}"
        )
        write_inputs(module.card, folder)
        weights = sum(weight.numel() for weight in module.trained_weights().values())
        print(f"training {weights:,} weights ({t.freeze_model}), step {step} to {t.max_steps}: {folder}")
        if plan.text():
            print(plan.text())

    stop_message = "\nstopping after this step; once more to stop at once"
    saving = Checkpoints(folder, t.checkpoint_every, t.keep_checkpoints)
    stop = StopOnSignal(saving, lambda: print(stop_message, flush=True))
    more = training_callbacks(config, module, plan, folder, saving)
    trainer = train(module, plan.learnt, training, folder, [saving, stop, *more], resumed, announce)
    if trainer.is_global_zero:
        report(
            folder,
            trainer.global_step,
            stop.stopped,
            next((c for c in more if isinstance(c, Validation)), None),
        )


if __name__ == "__main__":
    run(main)
