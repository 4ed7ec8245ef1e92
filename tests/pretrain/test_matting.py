"""Training of the matting network: its start, its loss, which weights move; and its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, nn

from ldm.compositing.matting import WITH_BOX, MattingNetwork
from ldm.pretrain import matting_samples as samples
from ldm.pretrain.matting_samples import (
    MattingBatch,
    MattingComposer,
    framed,
    layer_of,
    like_ground,
    shadow_layer,
    turned_and_placed,
)
from ldm.pretrain.networks import MattingTraining, fold, matting_loss, overlap, start_from_imagenet
from tests.fixtures.pictures import small_pack

SIZE = 64


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> MattingComposer:
    return MattingComposer(small_pack(tmp_path_factory.mktemp("pack")), [SIZE])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_folded_convolution_normalises() -> None:
    torch.manual_seed(0)
    conv, norm, folded = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Conv2d(3, 5, 3)
    norm(torch.randn(8, 5, 4, 4) * 3 + 1)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    fold(conv, norm.eval(), folded)
    x = torch.randn(2, 3, 9, 9)
    assert torch.allclose(folded(x), norm(conv(x)), atol=1e-5)


def test_the_encoder_starts_as_the_imagenet_network() -> None:
    imagenet = pytest.importorskip("ldm.features.imagenet")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the `pretrain` extra")
    network = MattingNetwork()
    start_from_imagenet(network)
    x = torch.rand(1, 3, 96, 96, generator=Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        theirs = imagenet.ImageNetFeatures().net
        # they pad the right and lower side of even sizes alone, so that their picture lies one pixel further
        moved = torch.roll((x + 1) / 2 - torch.tensor(imagenet.MEAN)[:, None, None], (1, 1), (2, 3))
        expected = theirs._bn0(theirs._conv_stem(moved / torch.tensor(imagenet.STD)[:, None, None]))
        found = network.stem(x)
        assert torch.allclose(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-3)
        y = torch.rand(1, 24, 20, 20)
        block = theirs._blocks[2].eval()
        assert torch.allclose(network.blocks[2](y), block(y), atol=1e-3)


def test_the_loss_is_least_for_the_truth_and_the_overlap_is_known() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:6, 2:6] = 1
    half = truth.clone()
    half[..., 4:6, :] = 0
    perfect, worse = matting_loss(40 * truth - 20, truth), matting_loss(40 * half - 20, truth)
    assert perfect["loss"] < 0.05 and all(worse[name] > perfect[name] for name in perfect)
    assert overlap(half, truth).item() == pytest.approx(0.5)
    assert overlap(truth * 0, truth * 0).item() == pytest.approx(1)


def test_a_step_moves_all_but_the_layers_that_see_no_box() -> None:
    torch.manual_seed(0)
    training = MattingTraining(MattingNetwork(), lr=1e-3, steps=10)
    training.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    before = {key: value.clone() for key, value in training.network.state_dict().items()}
    batch = MattingBatch(torch.randn(2, 4, SIZE, SIZE), torch.rand(2, 1, SIZE, SIZE))
    optimizer = training.configure_optimizers()["optimizer"]
    training.training_step(batch, 0).backward()
    optimizer.step()
    fixed = ("stem.", *(f"blocks.{i}." for i in range(WITH_BOX)))
    for key, value in training.network.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith(fixed), key


def test_samples_depend_on_the_generator_alone_and_have_their_ranges(composer: MattingComposer) -> None:
    batch, again, other = (composer.batch(6, Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(batch.image, again.image) and torch.equal(batch.alpha, again.alpha)
    assert not torch.equal(batch.image, other.image)
    assert batch.image.shape == (6, 4, SIZE, SIZE) and batch.alpha.shape == (6, 1, SIZE, SIZE)
    assert batch.image[:, :3].abs().max() <= 1 and batch.alpha.min() >= 0 and batch.alpha.max() <= 1
    assert set(batch.image[:, 3].unique().tolist()) <= {0.0, 1.0}


def test_photos_with_silhouettes_are_scenes_and_layers_and_those_without_an_object_the_ground(
    composer: MattingComposer,
) -> None:
    (photo, silhouette), layer = composer.scenes[0][0], composer.layers[-1][0]
    assert np.array_equal(layer[..., :3], photo) and (layer[..., 3:] <= silhouette).all()
    assert layer[..., 3].any() and [x.shape for x in composer.empty] == [(50, 60, 3)]


def test_a_cut_out_keeps_the_surer_half_of_its_edge() -> None:
    levels = np.array([0, 100, 127, 191, 255], np.uint8).reshape(1, 5, 1)
    assert layer_of(np.zeros((1, 5, 3), np.uint8), levels)[0, :, 3].tolist() == [0, 0, 0, 127, 255]


def test_the_box_holds_nearly_all_of_the_object_and_is_not_the_whole_crop(
    composer: MattingComposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "WHOLE", 0.0)
    image, alpha = composer.batch(24, Generator().manual_seed(1))
    for box, truth in zip(image[:, 3], alpha[:, 0], strict=True):
        if truth.max() > 0.5:
            assert (truth * box).sum() > 0.85 * truth.sum() and box.mean() < 1


def test_a_whole_picture_has_its_box_everywhere() -> None:
    alpha = np.zeros((40, 60), np.float32)
    alpha[10:20, 10:30] = 1
    picture = np.repeat(alpha[..., None], 3, 2)
    whole = framed(picture, alpha, True, SIZE, rng())
    assert (whole[..., 3] == 1).all() and np.allclose(whole[..., 0], 2 * whole[..., 4] - 1, atol=1e-5)
    near = framed(picture, alpha, False, SIZE, rng())
    assert near[..., 3].min() == 0 and near[..., 4].mean() > whole[..., 4].mean(), "cropped to it"


def test_a_placed_layer_keeps_its_length_and_stays_inside() -> None:
    layer = np.zeros((50, 50, 4), np.float32)
    layer[10:40, 20:30] = 1
    for seed in range(8):
        found = turned_and_placed(layer, (90, 120), 60, rng(seed))
        assert found.shape == (90, 120, 4)
        rows, columns = (np.flatnonzero((found[..., 3] > 0.5).any(side)) for side in (1, 0))
        assert 25 < max(np.ptp(rows), np.ptp(columns)) < 80


def test_an_object_like_its_ground_has_nearly_its_colour_and_its_own_alpha() -> None:
    ground = np.full((30, 30, 3), (0.2, 0.5, 0.7), np.float32)
    layer = np.zeros((30, 30, 4), np.float32)
    layer[8:20, 8:20] = (0.9, 0.1, 0.1, 1)
    found = like_ground(layer, ground, 0.9)
    assert np.array_equal(found[..., 3], layer[..., 3])
    assert np.abs(found[10, 10, :3] - (0.2, 0.5, 0.7)).max() < 0.1 and not found[0, 0].any()


def test_a_shadow_lies_at_the_foot_and_is_soft() -> None:
    alpha = np.zeros((80, 80), np.float32)
    alpha[20:60, 30:50] = 1
    dark = shadow_layer(alpha, rng(2))
    assert dark.min() >= 0 and dark.max() < 1 and dark[50:75].sum() > 5 * dark[:20].sum()
    assert not shadow_layer(alpha * 0, rng()).any()
