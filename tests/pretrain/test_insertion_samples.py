"""Insertion samples: what is the target, what is shown, what is held out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator

from ldm.pretrain.insertion_samples import KINDS, SHOWN, InsertionBatch, InsertionComposer, box_of, recoloured
from ldm.pretrain.networks import AutoencoderCrops
from ldm.pretrain.picture_pack import Pack
from tests.fixtures.pictures import small_pack

SIZE = 64


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return small_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def composer(pack: Pack) -> InsertionComposer:
    return InsertionComposer(pack, SIZE, 28)


def sample(composer: InsertionComposer, kind: str, how: str) -> InsertionBatch:
    return composer.sample(kind, Generator().manual_seed(3), how)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", SHOWN)
def test_outside_the_mask_everything_is_shown_as_it_is(
    composer: InsertionComposer, kind: str, how: str
) -> None:
    s = sample(composer, kind, how)
    outside = s.mask == 0
    assert torch.equal(s.shown * outside, s.image * outside) and bool((s.mask > 0).any())
    assert s.image.shape == (1, 3, SIZE, SIZE) and s.references.shape == (1, 3, 3, 28, 28)
    assert s.image.abs().max() < 1 + 1e-5 and s.shown.abs().max() < 1 + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_inside_the_mask(composer: InsertionComposer, kind: str) -> None:
    nothing, scene = (sample(composer, kind, how) for how in ("nothing", "scene"))
    inside = nothing.mask > 0
    assert (nothing.shown * inside).abs().max() == 0, "mid-grey"
    assert (scene.shown * inside).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["relit", "photo", "composed"])
def test_the_object_is_shown_in_another_light_than_its_truth(composer: InsertionComposer, kind: str) -> None:
    s = sample(composer, kind, "scene")
    own = (s.own * s.mask) > 0.9
    assert bool(own.any()) and (s.image - s.shown).abs()[own.expand_as(s.image)].mean() > 0.02


def test_a_photo_with_a_silhouette_is_shown_with_its_own_object_recoloured(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red squares on green photos; empty silhouettes are left out."""
    monkeypatch.setattr("ldm.pretrain.insertion_samples.OWN_OBJECT", 1.0)
    photo, known = torch.zeros(3, 80, 80, dtype=torch.uint8), torch.zeros(1, 80, 80, dtype=torch.uint8)
    photo[1], known[:, 30:60, 20:50] = 120, 255
    photo[:, 30:60, 20:50] = torch.tensor([200, 40, 40], dtype=torch.uint8)[:, None, None]
    made = replace(pack, photos=[photo, photo], silhouettes=[known, torch.zeros_like(known)])
    composer = InsertionComposer(made, SIZE, 28)
    assert len(composer.subjects) == 1
    for seed in range(4):
        s = composer.sample("photo", Generator().manual_seed(seed), "scene")
        red = s.image[:, :1] > s.image[:, 1:2]
        assert ((s.own > 0.5) == red).float().mean() > 0.97, "its silhouette"
        changed = (s.image - s.shown).abs().amax(1, keepdim=True)
        assert changed[s.own > 0.9].mean() > 0.02 and changed[s.own == 0].max() < 1e-5


def test_holes_have_no_object_and_no_context(composer: InsertionComposer) -> None:
    s = composer.sample("hole", Generator().manual_seed(0))
    assert s.object.tolist() == [-1] and s.own.max() == 0 and (s.shown * s.mask).abs().max() == 0
    assert composer.sample("composed", Generator().manual_seed(0)).object.tolist() == [0]


def test_a_batch_is_a_function_of_the_generator(composer: InsertionComposer) -> None:
    first, second = (composer.batch(6, Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and len(first.image) == 6


def test_recolouring_stays_in_range_and_changes_colours() -> None:
    image = torch.rand(3, 20, 20, generator=Generator().manual_seed(0))
    other = recoloured(image, Generator().manual_seed(1))
    assert other.shape == image.shape and not torch.allclose(image, other)
    assert other.min() >= 0 and other.max() <= 1


def test_the_box_of_an_alpha() -> None:
    alpha = torch.zeros(10, 12)
    alpha[2:5, 3:9] = 1
    assert box_of(alpha) == (3, 2, 9, 5) and box_of(torch.zeros(8, 8)) == (2, 2, 6, 6)


def test_autoencoder_crops_are_in_range_and_a_function_of_the_generator(pack: Pack) -> None:
    crops = AutoencoderCrops(pack, 32)
    first, second = (crops.batch(20, Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (20, 3, 32, 32) and torch.equal(first, second) and first.abs().max() < 1 + 1e-5


def test_a_pack_without_relit_scenes_is_refused(pack: Pack) -> None:
    with pytest.raises(ValueError, match="no relit scenes; write it again"):
        InsertionComposer(replace(pack, relit=[]), SIZE, 28)
