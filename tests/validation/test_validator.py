"""The validator: fixed regions, what its scores mean, and that training does not notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ldm.compositing.composite_fill import CompositeSettings, make_composite_fill
from ldm.config.schema import load_config
from ldm.data.image import to_image
from ldm.data.insertset import InsertSet, Sample, load_insertset
from ldm.data.picture import read_rgb
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.region import grey_fill
from ldm.models.base import Base
from ldm.models.sampler import sample
from ldm.objects.delta import trained_names
from ldm.training.checkpoints import Checkpoints, find_checkpoint, read_checkpoint
from ldm.validation.callback import SAMPLE, Validation, hold_out
from ldm.validation.validator import (
    CODING,
    REGIONS,
    RegionFiller,
    Validator,
    nearest_other,
    place_of,
    score,
    validation_pictures,
)
from tests.fixtures.small import object_folder, small_base, small_filler, state_of
from tests.training.test_callbacks import fit

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def features() -> ImageNetFeatures:
    pytest.importorskip("efficientnet_lite_pytorch")
    return ImageNetFeatures()


@pytest.fixture()
def toy(tmp_path: Path) -> InsertSet:
    return load_insertset(object_folder(tmp_path / "toy"))


def filler(training: InsertSet, held: tuple[Sample, ...] = ()) -> RegionFiller:
    return small_filler(training, validation_pictures(training, held))


def validator(insertset: InsertSet, features: ImageNetFeatures, held: str = "0") -> Validator:
    training, held_out = hold_out(insertset, held)
    return Validator(training, held_out, features, filler(training, held_out))


def options(fill: RegionFiller) -> tuple[Any, ...]:
    return fill.sampling, fill.seam, fill.seed, fill.null


class Fixed(RegionFiller):
    """Its regions are filled with given pictures."""

    filled: Tensor

    def __call__(self, base: Base) -> Tensor:
        return self.filled


def test_a_place_has_the_box_in_its_middle_and_the_picture_around_it(toy: InsertSet) -> None:
    place = place_of(toy.few_shot[0], 32, factor=1.5)
    rows, columns = np.flatnonzero(place.mask.any(1)), np.flatnonzero(place.mask.any(0))
    assert place.image.shape == (3, 32, 32) and place.mask.shape == (32, 32)
    # the box 8 10 30 36 and a tenth of it to each side, in a square of 1.5 x 32 px, cut to 40
    assert np.allclose([rows[0], rows[-1] + 1], [(7 - 3) * 32 / 40, (39 - 3) * 32 / 40], atol=1)
    assert np.allclose([columns[0], columns[-1] + 1], [5 * 32 / 40, 33 * 32 / 40], atol=1)


def test_the_same_base_gets_the_same_score_and_keeps_its_weights(
    toy: InsertSet, features: ImageNetFeatures
) -> None:
    validate, base = validator(toy, features), small_base()
    before, noise = state_of(base), torch.random.get_rng_state()
    one, two = validate(base, 3), validate(base, 3)
    assert one.score == two.score and np.array_equal(one.sheet, two.sheet)
    assert len(one.score.scores) == REGIONS and one.score.step == 3
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), noise)
    other = validate(small_base(seed=1), 3)
    assert other.score != one.score


def test_a_run_in_bf16_scores_nearly_the_same(
    toy: InsertSet, features: ImageNetFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldm.validation.validator.STEPS", 2)  # bf16 is emulated on many processors
    validate, base = validator(toy, features), small_base()
    with torch.autocast("cpu", torch.bfloat16):
        half = validate(base, 3).score
    assert half.identity == pytest.approx(validate(base, 3).score.identity, abs=0.05)


def test_solvers_run_in_fp32_whatever_training_runs_in(
    toy: InsertSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def spy(base: Base, condition: Any, x_T: Tensor, **rest: Any) -> Tensor:
        seen.extend([x_T.dtype, condition.masked.dtype])
        return sample(base, condition, x_T, **rest)

    monkeypatch.setattr("ldm.insertion.inpaint.sample", spy)
    monkeypatch.setattr("ldm.validation.validator.STEPS", 1)
    with torch.autocast("cpu", torch.bfloat16):
        filler(toy)(small_base())
    assert set(seen) == {torch.float32}


def test_outside_the_masks_regions_stay_as_they_are(toy: InsertSet) -> None:
    fill = filler(toy)
    for place, filled in zip(fill.places, fill(small_base()), strict=True):
        inside = torch.from_numpy(place.mask)
        assert torch.equal(filled[:, ~inside], place.image[:, ~inside])
        assert not torch.equal(filled[:, inside], place.image[:, inside])


def test_what_was_in_the_mask_does_not_show_through(toy: InsertSet) -> None:
    """It would be scored as if the model had drawn it."""
    results = []
    for colour in (-1.0, 1.0):
        fill, base = filler(toy), small_base()
        place = fill.places[0]
        image = torch.where(torch.from_numpy(place.mask), colour, place.image)
        composited = make_composite_fill(CompositeSettings(detail_transfer=4.0))
        fill = RegionFiller([replace(place, image=image)], fill.view, *options(fill), composited)
        results.append(fill(base)[0])
    assert torch.equal(*results)


def test_the_held_out_picture_itself_is_the_best_answer(toy: InsertSet, features: ImageNetFeatures) -> None:
    """Identity is of the held-out picture, copying of the training pictures."""
    training, held = hold_out(toy, "0")
    fill = filler(training, held)
    fixed = Fixed(fill.places, fill.view, *options(fill), grey_fill)
    validate = Validator(training, held, features, fixed)
    held_out, known = (place_of(x, 32, 2.0).image for x in (held[0], training.few_shot[0]))
    scores = []
    for image in (held_out, known):
        fixed.filled = image.expand(len(fill.places), -1, -1, -1)
        scores.append(validate(small_base(), 1).score)
    assert scores[0].identity > scores[1].identity
    assert scores[0].copying < scores[1].copying


def test_copying_is_measured_against_the_similarity_of_the_photos() -> None:
    views = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=1)
    assert nearest_other(views) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(nearest_other(views[:1]))


def test_a_score_loses_by_seam_and_copying_only_above_their_limits() -> None:
    assert score(0.5, 0.8, -0.3) == 0.5 == score(0.5, 1.0, math.nan)
    assert score(0.5, 2.0, 0.2) == pytest.approx(0.5 - 0.1 - 0.2)


def test_one_picture_is_enough(toy: InsertSet, features: ImageNetFeatures) -> None:
    alone = replace(toy, few_shot=toy.few_shot[:1], same_category=())
    shown = Validator(alone, (), features, filler(alone))(small_base(), 0)
    assert math.isnan(shown.score.copying) and len(shown.score.scores) == 1


def test_validation_leaves_training_as_it_is(tmp_path: Path, features: ImageNetFeatures) -> None:
    states = []
    for validated in (False, True):
        folder = tmp_path / str(validated)
        saving = Checkpoints(folder / "run", every=100)
        callbacks = [saving]
        if validated:
            insertset = load_insertset(object_folder(tmp_path / "toy"))
            callbacks.append(Validation(validator(insertset, features, ""), folder / "run", 1, saving))
        fit(folder, callbacks, 2)
        states.append(read_checkpoint(find_checkpoint(folder / "run"))["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_sheet_shows_the_target_and_every_region(
    toy: InsertSet, features: ImageNetFeatures, tmp_path: Path
) -> None:
    pixels = np.zeros((48, 40, 3), np.uint8)
    pixels[..., 1] = 200
    Image.fromarray(pixels).save(toy.few_shot[0].image)
    validate = validator(load_insertset(toy.root), features)
    picture = validate(small_base(), 1).sheet
    assert picture.shape[1] >= (1 + REGIONS) * 32
    assert (picture == (0, 200, 0)).all(-1).any()  # the held-out picture is of that colour
    assert torch.equal(
        validate.fill.places[0].image[:, 0, 0], to_image(read_rgb(toy.few_shot[0].image))[:, 0, 0]
    )


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize(("name", "of_coding", "of_learning"), [("mini", 0.5, 0.15), ("v", 0.1, 0.1)])
def test_what_validation_and_training_cost_is_counted_in_forwards(
    name: str, of_coding: float, of_learning: float
) -> None:
    a = load_config(CONFIGS / f"{name}.yaml").base.architecture
    with torch.device("meta"):  # nothing is computed, the operations are counted
        base = Base(a)
        x = torch.zeros(2, a.latent_channels, a.latent_size, a.latent_size)
        t = torch.full((2,), 500)
        context, image = torch.zeros(2, 6, a.context_width), torch.zeros(2, 3, a.image_size, a.image_size)
    base.requires_grad_(False)
    forward = flops(lambda: base.eps(x, t, x, x[:, :1], context))
    coding = flops(lambda: (base.encode(image), base.decode(x)))
    assert coding / forward == pytest.approx(CODING, rel=of_coding)
    weights = dict(base.named_parameters())
    for weight in trained_names(base, "crossattn"):
        weights[weight].requires_grad_(True)
    context.requires_grad_(True)
    learning = flops(lambda: base.eps(x, t, x, x[:, :1], context).sum().backward())
    assert learning / forward == pytest.approx(SAMPLE, rel=of_learning)
