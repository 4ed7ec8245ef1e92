"""The estimate of time: its counts against FLOPs, what is counted once, and when the plan is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ldm.config.schema import load_config
from ldm.evaluation.estimate import (
    ENCODING,
    Work,
    duration,
    learning_forwards,
    remaining,
    seconds_as_learnt,
    work_of,
)
from ldm.evaluation.trial import CODING
from ldm.models.base import Base
from ldm.objects.delta import trained_names
from ldm.training.judging import SAMPLE
from ldm.training.samples import encoded

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = {"max_steps": 200, "batch_size": 8, "accumulate": 1, "bank": 384, "precision": "bf16-mixed"}


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize(("name", "rel"), [("mini", 0.5), ("v", 0.1)])
def test_counts_of_forwards_are_those_of_flops(name: str, rel: float) -> None:
    a = load_config(CONFIGS / f"{name}.yaml").base.architecture
    a = replace(a, collage=False)  # to lay one takes numbers, and next to no operations
    with torch.device("meta"):  # nothing is computed, the operations are counted
        base = Base(a)
        x, t = torch.zeros(2, 4, a.latent_size, a.latent_size), torch.full((2,), 500)
        context, pixels = torch.zeros(2, 6, a.context_width), (2, 3, a.image_size, a.image_size)
        image, mask = torch.zeros(pixels), torch.zeros(pixels)[:, :1]
        batch = {"image": image, "mask": mask, "reference": torch.zeros(2, 3, *[a.reference_size] * 2)}
    base.requires_grad_(False)
    forward = flops(lambda: base.eps(x, t, x, mask_of(x), context))
    assert flops(lambda: encoded(base, batch)) / forward == pytest.approx(ENCODING, rel=0.2)
    coding = flops(lambda: (base.encode(image), base.decode(x)))
    assert coding / forward == pytest.approx(CODING, rel=rel)
    weights = dict(base.named_parameters())
    for weight in trained_names(base, "crossattn"):
        weights[weight].requires_grad_(True)
    context.requires_grad_(True)
    learning = flops(lambda: base.eps(x, t, x, mask_of(x), context).sum().backward())
    assert learning / forward == pytest.approx(SAMPLE, rel=0.1)


def mask_of(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x[:, :1])


def cell(folder: Path, kind: str = "learnt", name: str = "a", sites: int = 2, scale: float = 5.0) -> Any:
    """Of a cell what the estimate looks at; the second site has three regions."""
    file = folder / f"{name}.safetensors"
    return SimpleNamespace(
        variant=SimpleNamespace(kind=kind),
        sampling=SimpleNamespace(steps=10, guidance_scale=scale),
        missing=lambda: [SimpleNamespace(rois=()), SimpleNamespace(rois=(1, 2, 3))][:sites],
        object_file=file,
        learnt_already=kind != "learnt" or file.is_file(),
        made_by={"settings": SETTINGS},
    )


def test_a_bank_is_encoded_once_and_every_sample_without_one() -> None:
    assert learning_forwards(SETTINGS) == 2 * 1600 + 3 * 384
    assert learning_forwards(SETTINGS | {"bank": 0, "accumulate": 2}) == (2 + 3) * 3200


def test_an_object_is_learnt_once_and_every_region_is_sampled(tmp_path: Path) -> None:
    learning = learning_forwards(SETTINGS)
    found = work_of([
        cell(tmp_path, "flat"), cell(tmp_path), cell(tmp_path, scale=1.0), cell(tmp_path, sites=0, name="b"),
    ])  # fmt: skip
    assert found == [Work(), Work(learning, 4 * (20 + CODING)), Work(0, 4 * (10 + CODING)), Work()]


def test_what_was_learnt_here_tells_how_long_learning_takes(tmp_path: Path) -> None:
    assert seconds_as_learnt([cell(tmp_path)]) == 0
    for name, seconds in (("a", 40), ("b", 60)):
        (tmp_path / f"{name}.safetensors").touch()
        (tmp_path / f"{name}.json").write_text(f'{{"seconds": {seconds}}}')
    (tmp_path / "given.safetensors").touch()  # without a note: it was not learnt here
    cells = [cell(tmp_path, name=name) for name in ("a", "a", "b", "given", "not yet")]
    assert seconds_as_learnt(cells) == pytest.approx(50 / learning_forwards(SETTINGS))


def test_the_rest_goes_by_the_plan_until_enough_was_done() -> None:
    assert remaining(1000, 0, 0) == 1000 and remaining(0, 0, 7) == 0
    assert remaining(1000, 0, 5) == pytest.approx(1000, rel=0.11)  # pasting: nothing of what was planned
    assert remaining(1000, 200, 200) == pytest.approx(800)
    assert remaining(1000, 500, 250) == pytest.approx(250, rel=0.1)  # twice as fast as planned
    assert remaining(1000, 1000, 3000) == 0


def test_a_duration_in_its_own_unit() -> None:
    assert [duration(x) for x in (39.7, 720, 12600)] == ["40 s", "12 min", "3.5 h"]
