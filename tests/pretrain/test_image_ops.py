"""Operations on pictures: exact cases and bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from ldm.pretrain import image_ops as layers

SIZE = 40


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def disc(size: int = 24, margin: int = 4) -> Tensor:
    """uint8 [4,size,size]: an orange disc, its alpha 0 around it."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (x - (size - 1) / 2) ** 2 + (y - (size - 1) / 2) ** 2 < (size / 2 - margin) ** 2
    colour = torch.tensor([255, 128, 0]).view(3, 1, 1).expand(3, size, size)
    return torch.cat([colour, 255 * inside[None]]).to(torch.uint8)


def test_numbers_are_spread_over_their_range() -> None:
    g = generator()
    numbers = torch.tensor([layers.uniform(2, 5, g) for _ in range(500)])
    assert 2 <= numbers.min() < 2.1 and 4.9 < numbers.max() <= 5
    assert {layers.choice([7, 8, 9], g) for _ in range(50)} == {7, 8, 9}


def test_premultiplied_layers_are_tight_and_hide_colours() -> None:
    layer = layers.premultiplied(disc())
    assert layer.shape == (4, 16, 16) and layer.max() == 1
    assert (layer[:3] * (1 - layer[3:]) == 0).all()
    empty = torch.zeros(4, 5, 6)
    assert torch.equal(layers.tight(empty), empty)


def test_over_shows_what_is_on_top() -> None:
    layer, ground = layers.premultiplied(disc()), torch.full((3, 16, 16), 0.25)
    out = layers.over(layer, ground)
    assert torch.equal(out[:, 0, 0], ground[:, 0, 0])
    assert torch.allclose(out[:, 8, 8], torch.tensor([1, 128 / 255, 0]))


@pytest.mark.parametrize("seed", range(8))
def test_a_placed_layer_lies_in_its_box(seed: int) -> None:
    layer, (x0, y0, x1, y1) = layers.placed_at_random(layers.premultiplied(disc()), SIZE, generator(seed))
    assert layer.shape == (4, SIZE, SIZE) and 0 <= x0 < x1 <= SIZE and 0 <= y0 < y1 <= SIZE
    assert 0.3 * SIZE <= max(x1 - x0, y1 - y0) <= 0.75 * SIZE
    inside = layer[3, y0:y1, x0:x1].sum()
    assert inside > 0 and torch.allclose(inside, layer[3].sum())
    assert layer[3, y0:y1, x0:x1].amax(1).min() > 0, "the box is tight"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("box", [(10, 12, 25, 30), (0, 0, 40, 40), (0, 5, 8, 40)])
def test_a_region_contains_its_box_and_grows_little(box: tuple[int, int, int, int], seed: int) -> None:
    region = layers.region(box, SIZE, generator(seed))
    x0, y0, x1, y1 = box
    assert region.shape == (1, SIZE, SIZE) and set(region.unique().tolist()) <= {0.0, 1.0}
    assert region[0, y0:y1, x0:x1].all()
    rows, columns = region[0].any(1).nonzero(), region[0].any(0).nonzero()
    assert len(rows) <= (y1 - y0) * 5 / 3 + 1 and len(columns) <= (x1 - x0) * 5 / 3 + 1


def test_regions_are_rectangles_and_blobs() -> None:
    """A rectangle fills its own bounding box."""

    def fills(seed: int) -> bool:
        region = layers.region((10, 10, 28, 28), SIZE, generator(seed))[0]
        return bool(region.sum() == region.any(1).sum() * region.any(0).sum())

    filled = sum(fills(seed) for seed in range(60))
    assert 15 < filled < 50


@pytest.mark.parametrize("seed", range(6))
def test_a_shadow_lies_at_the_foot_of_its_object(seed: int) -> None:
    layer, box = layers.placed_at_random(layers.premultiplied(disc()), SIZE, generator(seed))
    shadow = layers.shadow(layer[3:], box, generator(seed))
    assert shadow.shape == (1, SIZE, SIZE) and shadow.min() >= 0 and 0.05 < shadow.max() <= 0.76
    rows = torch.arange(SIZE) + 0.5
    centre = (shadow[0].sum(1) * rows).sum() / shadow.sum()
    assert centre > (box[1] + box[3]) / 2


@pytest.mark.parametrize("amount", [0.0, 0.25])
def test_jitter_changes_colours_only_as_much_as_asked(amount: float) -> None:
    rgb = torch.rand(3, 8, 8, generator=generator())
    out = layers.jitter(rgb, generator(), amount)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.allclose(out, rgb, atol=1e-6) == (amount == 0)


def test_jitter_leaves_alpha_and_emptiness() -> None:
    layer = layers.premultiplied(disc())
    out = layers.jitter_layer(layer, generator(), 0.25)
    assert torch.equal(out[3], layer[3]) and (out[:3, layer[3] == 0] == 0).all()
    assert not torch.allclose(out[:3], layer[:3])


def test_a_layer_is_pulled_towards_its_scene() -> None:
    layer = layers.premultiplied(disc())
    dark, bright = torch.full((3, 16, 16), 0.05), torch.full((3, 16, 16), 0.95)
    assert torch.equal(layers.to_scene(layer, dark, 0), layer)
    assert layers.to_scene(layer, dark, 1)[:3].sum() < layer[:3].sum()
    assert layers.to_scene(layer, bright, 1)[2].sum() >= layer[2].sum()
    assert torch.equal(layers.to_scene(layer, dark, 1)[3], layer[3])


def test_a_crop_of_the_whole_short_side_is_the_photo() -> None:
    photo = torch.randint(256, (3, 20, 20), dtype=torch.uint8, generator=generator())
    crop = layers.random_crop(photo, 20, generator(), 1.0)
    expected = photo.float() / 255
    assert torch.allclose(crop, expected) or torch.allclose(crop, expected.flip(-1))
    crops = [layers.random_crop(photo, 20, generator(i), 1.0) for i in range(20)]
    mirrored = [torch.allclose(crop, expected.flip(-1)) for crop in crops]
    assert 3 < sum(mirrored) < 17


def test_a_reference_shows_the_layer_on_some_ground() -> None:
    photo = torch.zeros(3, 30, 30, dtype=torch.uint8)
    for seed in range(6):
        reference = layers.reference_of(layers.premultiplied(disc()), photo, 28, generator(seed))
        assert reference.shape == (3, 28, 28) and reference.min() >= 0 and reference.max() <= 1.001
        orange = (reference[0] > 0.5) & (reference[2] < 0.2)
        assert 0.4 < orange.float().mean() < 0.95
