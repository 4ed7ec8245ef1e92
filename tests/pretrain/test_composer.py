"""Composed samples: what the loss relies on, whatever the random numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from ldm.pretrain import composer as compose
from ldm.pretrain.composer import KINDS, Composed, Composer
from ldm.pretrain.picture_pack import Pack
from tests.fixtures.pictures import VIEWS, small_pack

SIZE, REFERENCE, FURTHER = 48, 28, 3
SEEDS = range(20)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return small_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def composer(pack: Pack) -> Composer:
    return Composer(pack, SIZE, REFERENCE, FURTHER)


@pytest.fixture(autouse=True)
def true_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects stay red, but for tests that say otherwise."""
    monkeypatch.setattr(compose, "RECOLOURED", 0.0)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def only(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Draw samples of one kind."""
    monkeypatch.setattr(compose, "KINDS", {name: float(name == kind) for name in KINDS})


def redness(image: Tensor) -> Tensor:
    """How much more red than green and blue: the objects are the only red things; [..,3,H,W] => [..,H,W]."""
    red, green, blue = image.unbind(-3)
    return red - torch.maximum(green, blue)


def equal(a: Composed, b: Composed) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_ranges(composer: Composer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    only(monkeypatch, kind)
    batch = composer.batch(6, generator())
    assert batch.image.shape == (6, 3, SIZE, SIZE) and batch.mask.shape == (6, 1, SIZE, SIZE)
    assert batch.references.shape == (6, 1 + FURTHER, 3, REFERENCE, REFERENCE)
    for pixels in (batch.image, batch.references):
        assert pixels.dtype == torch.float32 and pixels.abs().max() < 1 + 1e-5
        assert pixels.flatten(-3).std(-1).min() > 0.02, "nothing is blank"
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}
    assert batch.mask.mean((1, 2, 3)).min() > 0.02 and batch.mask.mean((1, 2, 3)).max() < 0.9
    rendered = range(1, 1 + len(composer.pack.multiview))
    cutouts = range(rendered.stop, composer.objects)
    numbered = {"photo": range(1), "multiview": rendered, "pair": rendered, "cutout": cutouts}
    assert set(batch.object.tolist()) <= set(numbered[kind]), "the same object has one number in every kind"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_function_of_the_generator(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    only(monkeypatch, kind)
    torch.manual_seed(1)
    first = composer.batch(3, generator(5))
    torch.manual_seed(2)
    assert equal(composer.batch(3, generator(5)), first), "the global generator plays no part"
    assert not equal(composer.batch(3, generator(6)), first)


@pytest.mark.parametrize("kind", ["cutout", "multiview", "pair"])
def test_the_mask_contains_the_object(composer: Composer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whatever of the object stays outside, the model would see and copy."""
    only(monkeypatch, kind)
    for seed in SEEDS:
        batch = composer.batch(2, generator(seed))
        for image, mask in zip(batch.image, batch.mask, strict=True):
            red = redness(image).clamp_min(0)
            assert red.max() > 0.3, "there is an object"
            assert (red * (1 - mask[0])).sum() < 0.02 * red.sum(), seed


@pytest.mark.parametrize("kind", ["cutout", "multiview", "pair"])
def test_references_show_the_object(composer: Composer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    only(monkeypatch, kind)
    references = composer.batch(8, generator()).references
    assert ((redness(references) > 0.2).float().mean((-2, -1)) > 0.3).all()


def test_a_photos_reference_is_the_content_of_its_region(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hues of region and reference go together over many samples, those of other samples do not."""
    only(monkeypatch, "photo")
    batch = composer.batch(64, generator())
    inside = (batch.image * batch.mask).sum((2, 3)) / batch.mask.sum((2, 3))
    hue = inside[:, 1] - inside[:, 2]
    shown = batch.references.mean((3, 4))[:, 0]
    shown_hue = shown[:, 1] - shown[:, 2]
    correlation, shuffled = (
        float(torch.corrcoef(torch.stack([hue, other]))[0, 1]) for other in (shown_hue, shown_hue.roll(1))
    )
    assert correlation > 0.8 and abs(shuffled) < 0.4, (correlation, shuffled)


def test_missing_views_repeat_the_reference(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multi-view sample has all views but the target's."""
    only(monkeypatch, "multiview")
    monkeypatch.setattr(compose, "SAME_POSE", 0.0)
    batch = Composer(pack, SIZE, REFERENCE, views=5).batch(4, generator())
    real = VIEWS - 2  # one is the target, one the reference
    for views in batch.references:
        assert all(torch.equal(view, views[0]) for view in views[1 + real :])
        assert not any(torch.equal(view, views[0]) for view in views[1 : 1 + real])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_view_to_be_drawn_may_be_the_first_reference(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(compose, "SAME_POSE", share)

    def same(target: Tensor, others: list[Tensor], number: int, g: Generator) -> list[bool]:
        return [other.shape == target.shape for other in others]  # every view has another size

    monkeypatch.setattr(composer, "_composed", same)
    for seed in SEEDS:
        first, *further = composer._multiview(generator(seed), 1 + FURTHER)
        assert first == bool(share) and not any(further)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_pairs_own_picture_may_be_the_first_reference(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """All views of a pair's object are 32 rows high, it itself is not."""
    monkeypatch.setattr(compose, "SAME_POSE", share)
    layers: list[Tensor] = []
    monkeypatch.setattr(compose, "reference_of", lambda layer, *_: layers.append(layer))
    composer._pair(generator(), 1 + FURTHER)
    assert [layer.shape[1] != 32 for layer in layers] == [bool(share)] + [False] * FURTHER


@pytest.mark.parametrize("kind", ["cutout", "multiview"])
def test_other_hues_are_those_of_another_object(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Target and references share them, and no number: what the object has learnt is of its own hues."""
    only(monkeypatch, kind)
    monkeypatch.setattr(compose, "RECOLOURED", 1.0)
    batch = composer.batch(24, generator())
    assert (batch.object == 0).all()
    hues = []
    for image, references in zip(batch.image, batch.references, strict=True):
        [hue] = set(references.mean((2, 3)).argmax(1).tolist())
        assert (image[0].max() > 0.3) == (hue == 0), "nothing but an object can be red"
        hues.append(hue)
    assert set(hues) == {0, 1, 2}


def test_images_alone_are_pictures_of_the_same_kinds(composer: Composer) -> None:
    images = composer.images(12, generator(3))
    assert images.shape == (12, 3, SIZE, SIZE) and images.abs().max() < 1 + 1e-5
    assert torch.equal(images, composer.images(12, generator(3)))
    assert 0 < ((redness(images) > 0.5).float().mean((1, 2)) > 0.03).sum() < 12, "objects in some of them"


def test_kinds_are_drawn_by_their_share(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = dict.fromkeys(KINDS, 0)

    def counting(kind: str) -> Callable:
        def draw(g: Generator, n: int) -> None:
            drawn[kind] += 1

        return draw

    for kind in KINDS:
        monkeypatch.setattr(composer, f"_{kind}", counting(kind))
    for draw in composer._kinds(4000, generator()):
        draw(generator(), 0)
    assert sum(KINDS.values()) == pytest.approx(1)
    assert {kind: count / 4000 for kind, count in drawn.items()} == pytest.approx(KINDS, abs=0.03)
