"""Objects that share a picture: each as if alone in its region, and deaf to what the others are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.config.schema import load_config
from ldm.data.object_crops import ObjectImages
from ldm.insertion.region import InsertableObject, ObjectFill
from ldm.models.base import Base, load_base
from ldm.models.cross_attention import Context, Contexts, Folded, Joined, cross_attentions, fold, join
from ldm.models.sampler import Condition, sample
from ldm.scenes.regional_context import Regional, in_regions
from tests.fixtures.small import small_base

EXAMPLES = Path(__file__).parents[2] / "examples"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def base() -> Base:
    return small_base()


def objects(base: Base, *counts: int) -> list[Contexts]:
    return [base.contexts(noise(1, n, base.architecture.context_width, seed=n)) for n in counts]


def together(contexts: Sequence[Contexts], masks: Tensor) -> Contexts:
    """Objects in regions of one picture."""
    return in_regions([InsertableObject(each, ObjectFill()) for each in contexts], masks).contexts


def halves(side: int) -> Tensor:
    """Left and right third of a square."""
    masks = torch.zeros(2, side, side)
    masks[0, :, : side // 3], masks[1, :, -side // 3 :] = 1, 1
    return masks


def test_every_position_sees_its_own_object_or_none(base: Base) -> None:
    a, b = objects(base, 2, 4)
    both = together([a, b], halves(12))
    x = noise(1, 144, 32)
    for ours, (left, right) in zip(both, zip(a, b, strict=True), strict=True):
        assert isinstance(ours, Regional) and isinstance(left, Folded) and isinstance(right, Folded)
        name = next(iter(left.layers))
        shown = ours.attend(name, x, 2).unflatten(1, (12, 12))
        for part, alone in ((slice(0, 4), left), (slice(4, 8), a.unconditional), (slice(8, 12), right)):
            expected = alone.attend(name, x, 2).unflatten(1, (12, 12))
            assert torch.allclose(shown[:, :, part], expected[:, :, part], atol=1e-6)


def test_the_rest_does_not_depend_on_the_objects_order(base: Base) -> None:
    a = base.contexts(noise(1, 3, 16))
    base.conditioner.learnable_vector += 1  # another object's own unconditional vector
    b = base.contexts(noise(1, 3, 16, seed=1))
    base.conditioner.learnable_vector -= 1
    masks, x = halves(12), noise(1, 144, 32)
    one, other = together([a, b], masks), together([b, a], masks.flip(0))
    for ours, theirs in zip(one, other, strict=True):
        name = next(iter(ours.rest.layers))
        assert torch.allclose(ours.attend(name, x, 2), theirs.attend(name, x, 2), atol=1e-6)


def test_a_part_of_the_picture_sees_its_own_piece_of_the_regions(base: Base) -> None:
    a, b = objects(base, 2, 4)
    both = join([a.unconditional, together([a, b], halves(12)).conditional])
    left = both.within((0.3, 0, 0.6, 0.3))
    assert isinstance(left, Joined)
    x, name = noise(2, 144, 32), next(iter(a.conditional.layers))
    expected = join([a.unconditional, a.conditional]).attend(name, x, 2)
    assert torch.allclose(left.attend(name, x, 2), expected, atol=1e-6)
    assert a.conditional.within((0, 0, 0.1, 0.1)) is a.conditional


def test_a_square_part_stays_square(base: Base) -> None:
    """A layer's grid is told from the masks' shape: one cell more or less on a side would be another grid."""
    both = together(objects(base, 2, 4), halves(13)).conditional
    for y, x in itertools.product(range(7), repeat=2):
        part = both.within((y / 10, x / 10, (y + 3) / 10, (x + 3) / 10))
        assert isinstance(part, Regional) and part.masks.shape == (2, 4, 4)


def folded(base: Base, context: Tensor) -> Folded:
    return fold(dict(cross_attentions(base.unet)), context)


def eps(base: Base, context: Context) -> Tensor:
    x = noise(1, 9, 16, 16, seed=1)
    return base.eps(x[:, :4], torch.tensor(300), x[:, 4:8], x[:, 8:], context)


def test_a_region_holds_its_own_object_only(base: Base) -> None:
    """At a layer: left half as if object 0 were alone, right half as object 1, between them the rest."""
    a, b, rest = (folded(base, noise(1, n, 16, seed=n)) for n in (2, 3, 1))
    masks = torch.zeros(2, 64, 64)
    masks[0, :, :16], masks[1, :, 48:] = 1, 1
    regional = Regional(masks, [a, b], rest)
    name = next(iter(a.layers))
    x = noise(1, 16 * 16, 32)
    image = regional.attend(name, x, 2).unflatten(1, (16, 16))
    for part, one in ((slice(0, 4), a), (slice(4, 12), rest), (slice(12, 16), b)):
        alone = one.attend(name, x, 2).unflatten(1, (16, 16))
        assert torch.allclose(image[:, :, part], alone[:, :, part], atol=1e-6)


def test_a_region_that_is_everywhere_is_the_object_alone(base: Base) -> None:
    one, rest = folded(base, noise(1, 3, 16)), folded(base, noise(1, 1, 16, seed=9))
    assert torch.allclose(eps(base, Regional(torch.ones(1, 32, 32), [one], rest)), eps(base, one), atol=1e-5)


def test_overlapping_regions_share(base: Base) -> None:
    one, rest = folded(base, noise(1, 3, 16)), folded(base, noise(1, 1, 16, seed=9))
    twice = Regional(torch.ones(2, 32, 32), [one, one], rest)
    assert torch.allclose(eps(base, twice), eps(base, one), atol=1e-5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of three objects that nobody takes for each other."""
    red = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (64, 64), (220, 30, 30)).save(red)
    return [EXAMPLES / "objects" / "rocket_bee" / "test.jpg", EXAMPLES / "scenes" / "rocks.jpg", red]


def test_neither_object_bleeds_into_the_others_region_on_the_mini_base(pictures: list[Path]) -> None:
    """After a whole trajectory another neighbour changes an object's region little; another object, a lot."""
    config = load_config(EXAMPLES.parent / "configs" / "mini.yaml").base
    base, a = load_base(EXAMPLES.parent / config.path, config.architecture), config.architecture
    images, size = ObjectImages(a.reference_size), a.latent_size
    bee, rocks, red = (base.contexts(base.context(images.reference(file))) for file in pictures)
    masks, band = torch.zeros(2, size, size), slice(size // 4, -size // 4)
    masks[0, band, size // 8 : 3 * size // 8], masks[1, band, -3 * size // 8 : -size // 8] = 1, 1
    left, right = masks > 0
    hole = masks.amax(0)[None, None]
    masked = base.encode(torch.zeros(1, 3, a.image_size, a.image_size))

    def made(contexts: Contexts) -> Tensor:
        return sample(base, Condition(masked, hole, contexts), noise(*masked.shape), sampler="ddim", steps=5)

    def changed(x: Tensor, where: Tensor) -> float:
        return float((x - both)[..., where].square().mean().sqrt())

    both, neighbour, self = (made(together(two, masks)) for two in ((bee, rocks), (bee, red), (red, rocks)))
    for own, foreign, where, alone in ((self, neighbour, left, bee), (neighbour, self, right, rocks)):
        assert changed(foreign, where) < 0.25 * changed(own, where)
        assert changed(made(alone), where) < 0.25 * changed(own, where), "as if it were alone"
