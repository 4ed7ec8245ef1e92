"""Learning rates of the few-shot part alone, on mini: loss, and movement of the tokens.

    pip install '.[charts]'
    python benchmarks/learning_rates.py   # about 10 minutes of one core => docs/learning_rates.png and .csv

Everything but the few-shot part is frozen. Regions are mid-grey. The loss is measured on the same samples and
noise each time. So small a base hardly uses its context, which determines only a small part of its loss.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ldm.config.build import object_images
from ldm.config.schema import load_config
from ldm.data.files import atomic_file, write_file
from ldm.data.insertset import InsertSet, load_insertset
from ldm.data.object_crops import ObjectImages
from ldm.data.pairs import SampleOptions, TrainingPairs
from ldm.models.base import Base, load_base
from ldm.objects.few_shot import prepare_few_shot
from ldm.training.finetune import FineTune, Tuning
from ldm.training.samples import draw_noise, encoded

FULL_SIZE = 257 * 1024  # inputs of the prior encoder at Paint-by-Example's size
SAMPLES, MEASURED = 48, 16  # encoded few-shot samples, and how many of them the loss is measured on
BATCH, EVERY, SEED = 1, 50, 0
LOSS = "v"  # as configs/mini.yaml: that of eps hardly depends on the object
Row = tuple[str, str, int, float, float]  # panel, case, step, loss, movement


class Case(NamedTuple):
    """One run: `rate` of the few-shot part; of `linear`, as at Paint-by-Example's size."""

    few_shot: str
    rate: float
    warmup_steps: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.rate:.0e}".replace("e-0", "e-") + f", warm-up {self.warmup_steps:,}"


CASES = [
    *(Case("tokens", rate, 100, 400) for rate in (1e-5, 1e-3, 1e-2)),
    Case("linear", 1e-5, 10_000, 100),
    *(Case("linear", rate, 100, 100) for rate in (1e-5, 1e-7)),
]


def latents(base: Base, insertset: InsertSet, images: ObjectImages) -> dict[str, Tensor]:
    """Encoded few-shot samples: x_0, masked, latent_mask, pooled."""
    a = base.architecture
    only = replace(insertset, same_category=())
    pairs = TrainingPairs(only, a.image_size, a.reference_size, SampleOptions(SEED), images)
    parts = [encoded(base, default_collate([pairs[i]])) for i in range(SAMPLES)]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def run(
    case: Case, base: Base, crops: Tensor, samples: dict[str, Tensor]
) -> Iterator[tuple[int, float, float]]:
    """Train the few-shot part of `base` alone => step, loss, and movement every few steps."""
    prepare_few_shot(base, crops, case.few_shot, "raw", torch.Generator().manual_seed(SEED))
    inputs = base.architecture.clip_tokens * base.architecture.clip_width
    rate = case.rate if case.few_shot == "tokens" else case.rate * FULL_SIZE / inputs
    tuning = Tuning(
        lr=0,
        lr_conditioner=0,
        lr_tokens=rate,
        lr_prior_encoder=rate,
        drop_context=0,
        loss=LOSS,
        warmup_steps=case.warmup_steps,
        max_steps=case.steps,
    )
    module = FineTune(base, tuning)
    for name, weight in module.trained_weights().items():
        weight.requires_grad_("few_shot" in name or "prior_encoder" in name)
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    start = tokens_of(base)
    loss = partial(loss_of, module, samples)
    fixed = torch.arange(MEASURED)
    for step in range(case.steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                moved = movement(case.few_shot, tokens_of(base), start)
                yield step, float(loss(fixed, 10**6 + fixed)), moved
        optimizer.zero_grad()
        drawn = torch.randint(SAMPLES, (BATCH,), generator=torch.Generator().manual_seed(step))
        loss(drawn, step * BATCH + torch.arange(BATCH)).backward()
        optimizer.step()
        schedule.step()


def tokens_of(base: Base) -> Tensor:
    """The few-shot tokens as they are now, [N,c]."""
    tokens = base.conditioner.few_shot()
    assert tokens is not None
    return tokens.detach().clone()


def movement(few_shot: str, now: Tensor, start: Tensor) -> float:
    """How far tokens [N,c] have moved: rms, in standard deviations; of `linear`, in norms of the start."""
    scale = start.std() if few_shot == "tokens" else start.square().mean().sqrt()
    return float((now - start).square().mean().sqrt() / scale)


def loss_of(module: FineTune, samples: dict[str, Tensor], which: Tensor, index: Tensor) -> Tensor:
    """The loss of samples `which` [b] with the noise of sample numbers `index` [b]."""
    batch = {key: values[which] for key, values in samples.items()}
    return module.loss(batch, *draw_noise(index, SEED, tuple(batch["x_0"].shape[1:]), 0))


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Two panels a few-shot part: loss and movement over steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    axes = figure.subplots(2, 2)
    units = {"tokens": "movement, standard deviations", "linear": "movement, norms of the tokens"}
    for pair, (panel, unit) in zip(axes, units.items(), strict=True):
        mine = [row for row in rows if row[0] == panel]
        for name in dict.fromkeys(row[1] for row in mine):
            line = [row[2:] for row in mine if row[1] == name]
            steps, losses, moved = zip(*line, strict=True)
            style = ("--", 3) if "10,000" in name else ("-", 2)  # the first steps of two cases are the same
            pair[0].plot(steps, [loss / losses[0] for loss in losses], style[0], label=name, zorder=style[1])
            pair[1].plot(steps[1:], moved[1:], style[0], label=name, zorder=style[1])
        pair[0].set(title=f"few_shot={panel}", ylabel="loss, of that before learning", xlabel="step")
        pair[1].set(ylabel=unit, xlabel="step", yscale="log")
        pair[1].set_ylim(bottom=min(row[4] for row in mine if row[4]) / 30)  # room for the legend
        pair[1].legend(title="rate", fontsize="x-small", title_fontsize="small", loc="lower right")
    with atomic_file(path) as file:
        figure.savefig(file, format="png")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/mini_paper.yaml"))
    parser.add_argument("--dataset-dir", type=Path, default=Path("examples/objects/rocket_bee"))
    parser.add_argument("--out", type=Path, default=Path("docs/learning_rates.png"))
    args = parser.parse_args(argv)
    config: Any = load_config(args.config)
    base = load_base(Path(config.base.path), config.base.architecture)
    insertset = load_insertset(args.dataset_dir)
    images = object_images(config)
    crops, samples = images.few_shot(insertset), latents(base, insertset, images)
    rows: list[Row] = []
    for case in CASES:
        rows += [(case.few_shot, case.name, *measured) for measured in run(case, base, crops, samples)]
        first, last = rows[-1 - case.steps // EVERY], rows[-1]
        print(
            f"{case.few_shot} {case.name}: loss {first[3]:.4f} => {last[3]:.4f}, moved {last[4]:.3g}",
            flush=True,
        )
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([("few_shot", "case", "step", "loss", "movement"), *rows])
    write_file(args.out.with_suffix(".csv"), text.getvalue())
    draw(args.out, rows)


if __name__ == "__main__":
    main()
