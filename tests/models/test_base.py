"""A whole base: its interface, and loading what was saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.config.schema import load_config
from ldm.models.base import Base, base_fingerprint, base_state, load_base, load_inpainting_model, save_base
from ldm.models.checkpoint import read_metadata, read_state, weight_files, write_ckpt, write_safetensors
from ldm.models.conditioner import clip_normalised
from ldm.models.diffusion import STEPS, eps_of_v, masked_image
from ldm.models.inpainting_model import InpaintingModel
from ldm.objects.object_file import read_object_metadata
from tests.fixtures import tiny
from tests.fixtures.small import SMALL, small_base

GOLDEN = tiny.golden()
IMAGE = GOLDEN["vae.image"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny.loaded_base()


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def test_encode_is_the_scaled_mean_of_the_posterior(base: Base) -> None:
    latents = base.encode(IMAGE)
    assert latents.shape == (1, 4, 16, 16) and not latents.requires_grad
    assert (latents / 0.18215 - GOLDEN["vae.mean"]).abs().max() < 1e-4
    assert torch.equal(latents, base.encode(IMAGE)), "nothing is drawn"


def test_a_base_that_predicts_v_still_gives_eps(base: Base) -> None:
    other = Base(replace(tiny.TINY, prediction="v")).eval()
    other.load_state_dict(base.state_dict())
    x, t, context = GOLDEN["unet.x"], GOLDEN["unet.t"], GOLDEN["unet.context"]
    arguments = x[:, :4], t, x[:, 4:8], 1 - x[:, 8:], context
    v, eps = base.eps(*arguments), other.eps(*arguments)
    assert torch.allclose(eps, eps_of_v(v, x[:, :4], t), atol=1e-5) and not torch.allclose(eps, v, atol=0.1)


def test_a_folder_made_with_other_settings_is_refused(base: Base, tmp_path: Path) -> None:
    """They leave no trace in the shapes: the result would only be wrong."""
    save_base(base, tmp_path / "base")
    for key, value in (("prediction", "v"), ("unet_heads", 2), ("vae_scale", 1.0)):
        config = replace(tiny.TINY, **{key: value})
        for load in (load_base, load_inpainting_model):
            with pytest.raises(ValueError, match=f"made with {key} .*config says {key} {value}; use"):
                load(tmp_path / "base", config)
    assert load_base(tmp_path / "base", replace(tiny.TINY, name="other", image_size=64))


def test_a_folder_from_before_the_setting_read_its_masks_antialiased(base: Base, tmp_path: Path) -> None:
    """It does not say so; the default, Paint-by-Example's, is another."""
    save_base(base, tmp_path / "new")
    for file in (tmp_path / "new").iterdir():
        metadata = read_metadata(file)
        architecture = json.loads(metadata["architecture"])
        assert architecture.pop("mask_antialias") is False
        write_safetensors(
            tmp_path / "old" / file.name,
            read_state(file),
            metadata | {"architecture": json.dumps(architecture)},
        )
    with pytest.raises(
        ValueError, match="made with mask_antialias True, the config says mask_antialias False"
    ):
        load_base(tmp_path / "old", tiny.TINY)
    loaded = load_base(tmp_path / "old", replace(tiny.TINY, mask_antialias=True))
    assert base_fingerprint(loaded) == base_fingerprint(load_base(tmp_path / "new", tiny.TINY))


def test_the_embedded_base_is_what_it_was() -> None:
    """Its fingerprint, by which object files know it."""
    a = load_config(ROOT / "configs/mini.yaml").base.architecture
    assert a.mask_antialias
    shipped = weight_files(ROOT / "checkpoints/mini")
    loaded = load_base(ROOT / "checkpoints/mini", a)
    assert base_fingerprint(loaded) == read_metadata(shipped[0])["fingerprint"]


@pytest.mark.parametrize("antialias", [False, True])
def test_masks_come_to_latent_size_as_the_architecture_says(antialias: bool) -> None:
    model = InpaintingModel(replace(SMALL, mask_antialias=antialias))
    mask = torch.zeros(2, 1, 32, 48)
    mask[..., 6:20, 6:] = 1  # no cell of 2 x 2 pixels is cut
    small = model.latent_mask(mask)
    assert small.shape == (2, 1, 16, 24)
    assert bool(((small > 0) & (small < 1)).any()) == antialias


def test_decode_undoes_the_scale_and_clamps(base: Base) -> None:
    image = base.decode(GOLDEN["vae.z"] * 0.18215)
    assert image.shape == (1, 3, 128, 128) and not image.requires_grad
    assert (image - GOLDEN["vae.decoded"].clamp(-1, 1)).abs().max() < 1e-4
    assert GOLDEN["vae.decoded"].abs().max() > 1, "else clamping is not seen"


def test_sides_need_not_be_the_configs(base: Base) -> None:
    latents = base.encode(torch.zeros(2, 3, 64, 96))
    assert latents.shape == (2, 4, 8, 12) and base.decode(latents).shape == (2, 3, 64, 96)


def test_eps_takes_one_t_or_one_a_sample(base: Base) -> None:
    x = GOLDEN["unet.x"]
    parts = x[:, :4], GOLDEN["unet.t"], x[:, 4:8], 1 - x[:, 8:], GOLDEN["unet.context"]
    with torch.no_grad():
        eps = base.eps(*parts)
        assert (eps - GOLDEN["unet.eps"]).abs().max() < 1e-4
        second = base.eps(*(part[1:] for part in (parts[0], parts[1], *parts[2:])))
        scalar = base.eps(parts[0][1:], GOLDEN["unet.t"][1], *(part[1:] for part in parts[2:]))
    assert torch.allclose(scalar, second, atol=1e-5) and torch.allclose(second, eps[1:], atol=1e-4)


@torch.no_grad()
def test_context_normalises_and_has_the_objects_tokens(base: Base) -> None:
    image = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    c = base.conditioner
    one = base.context(image)
    assert one.shape == (2, 1, 48)
    assert torch.equal(one, c(c.pooled(clip_normalised(image))))
    tokens = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    c.use_tokens(tokens)
    try:
        assert torch.equal(base.context(image), c(c.pooled(clip_normalised(image)), tokens))
        assert base.context(image).shape == (2, 4, 48)
    finally:
        c.drop_few_shot()


def test_the_fingerprint_is_the_bases_alone(base: Base) -> None:
    """An object's few-shot part must not make another base of it; any weight of the base must."""
    own = base_fingerprint(base)
    base.conditioner.use_tokens(torch.zeros(2, 64))
    assert base_fingerprint(base) == own
    base.conditioner.use_linear(torch.zeros(2, 17, 64))
    assert base_fingerprint(base) == own
    base.conditioner.drop_few_shot()
    changed = tiny.loaded_base()
    changed.conditioner.learnable_vector += 0.1
    assert base_fingerprint(changed) != own


def test_save_and_load_in_half_precision(base: Base, tmp_path: Path) -> None:
    shards = save_base(base, tmp_path)
    loaded = load_base(tmp_path, tiny.TINY)
    halves = {key: value.half().float() for key, value in base_state(base).items()}
    assert same(
        {k: v for k, v in base_state(loaded).items() if v.is_floating_point()},
        {k: v for k, v in halves.items() if v.is_floating_point()},
    )
    assert base_fingerprint(loaded) == base_fingerprint(base)
    metadata = read_metadata(shards[0])
    assert metadata["fingerprint"] == base_fingerprint(base)
    assert json.loads(metadata["architecture"])["unet_channels"] == [32, 64, 128, 128]
    assert sum(path.stat().st_size for path in shards) < 2.1 * sum(p.numel() for p in base.parameters())


def test_an_object_is_not_saved_with_the_base(base: Base, tmp_path: Path) -> None:
    base.conditioner.use_tokens(torch.zeros(2, 64))
    save_base(base, tmp_path)
    base.conditioner.drop_few_shot()
    assert not any("few_shot" in key for key in read_state(tmp_path))
    load_base(tmp_path, tiny.TINY)


def test_a_loaded_base_is_frozen_and_in_float32(base: Base, tmp_path: Path) -> None:
    save_base(base, tmp_path)
    loaded = load_base(tmp_path, tiny.TINY)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@torch.no_grad()
def test_what_is_loaded_may_be_changed_and_the_file_is_not(base: Base, tmp_path: Path) -> None:
    """Weights that the file holds in fp32 may still be parts of the mapped file."""
    save_base(base, tmp_path, torch.float32)
    for load in (
        lambda: load_base(tmp_path, tiny.TINY),
        lambda: load_inpainting_model(tmp_path, tiny.TINY)[0],
    ):
        loaded = load()
        assert torch.equal(loaded.unet.conv_in.weight, base.unet.conv_in.weight)
        loaded.unet.conv_in.weight.fill_(7)
        assert torch.equal(load().unet.conv_in.weight, base.unet.conv_in.weight)


def test_nothing_of_a_loaded_base_is_left_empty(base: Base, tmp_path: Path) -> None:
    save_base(base, tmp_path, torch.float32)
    loaded = load_base(tmp_path, tiny.TINY)
    assert not any(x.is_meta for x in [*loaded.parameters(), *loaded.buffers()])
    image = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(loaded.context(image), base.context(image))


@pytest.mark.parametrize("prior_encoder", [False, True])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_checkpoint_of_the_paper_is_loaded(
    base: Base, tmp_path: Path, suffix: str, prior_encoder: bool
) -> None:
    state = tiny.ldm_state(prior_encoder=prior_encoder)
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        extras = {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9)}
        write_ckpt(path, {"state_dict": state | extras, "global_step": 7})
    else:
        write_safetensors(path, state)
    loaded = load_base(path, tiny.TINY)
    assert same(base_state(loaded), base_state(base))
    assert loaded.conditioner.few_shot() is None, "the prior encoder is the object's, not the base's"


def test_a_misfit_names_the_config(base: Base, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "base.safetensors", base_state(base))
    narrow = replace(tiny.TINY, context_width=40)
    with pytest.raises(
        ValueError, match=r"do not fit the base of configs/v\.yaml \(.* of another shape"
    ) as e:
        load_base(tmp_path / "base.safetensors", narrow, "the base of configs/v.yaml")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match=r"do not fit the tiny base \(.* missing: conditioner\.mapper"):
        load_base(tmp_path, replace(tiny.TINY, mapper_layers=6))


def test_a_missing_or_foreign_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt does not exist; expected"):
        load_base(tmp_path / "nowhere.ckpt", tiny.TINY)
    write_ckpt(tmp_path / "other.ckpt", {"state_dict": {"fc.weight": torch.zeros(2)}})
    with pytest.raises(ValueError, match=r"do not fit the tiny base .*extra: fc\.weight"):
        load_base(tmp_path / "other.ckpt", tiny.TINY)
    metadata = {"format": "implicit-insertion object", "architecture": "tiny"}  # text, not a base's JSON
    write_safetensors(tmp_path / "bee.safetensors", {"delta.x": torch.zeros(2)}, metadata)
    told = r"bee\.safetensors is an .* object file, extracted already; give it to inference\.sh as --object$"
    for load in (load_base, load_inpainting_model):
        with pytest.raises(ValueError, match=told):
            load(tmp_path / "bee.safetensors", tiny.TINY)


def test_shards_of_another_program_are_not_replaced(base: Base, tmp_path: Path) -> None:
    name = "model-00001-of-00001.safetensors"
    write_safetensors(tmp_path / name, {"theirs": torch.ones(3)}, {"format": "pt"})
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match=f"{name} was not written by this program .*; give another folder$"):
        save_base(base, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: before}
    own = save_base(base, tmp_path / "own")
    with pytest.raises(ValueError, match="is a base's checkpoint; give it as --base, and the object as --ob"):
        read_object_metadata(own[0])
    (tmp_path / "own/model-00001-of-00099.safetensors").write_bytes(own[0].read_bytes())  # of a larger base
    assert save_base(base, tmp_path / "own") == own and sorted((tmp_path / "own").iterdir()) == own


def test_a_base_that_predicts_changes_knows_grey_cells_in_every_picture() -> None:
    """Its autoencoder has attention: latents of mid-grey depend on the picture, until they are marked."""
    base = small_base(prediction="change", vae_scale=50.0)  # random weights encode little
    g, f = torch.Generator().manual_seed(0), base.architecture.vae_factor
    size = 8 * f
    image, mask = torch.rand(2, 3, size, size, generator=g) * 2 - 1, torch.zeros(2, 1, size, size)
    mask[:, :, 2 * f : 6 * f, f : 5 * f] = 1
    expected = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    expected[:, :, 2:6, 1:5] = True
    t = torch.tensor([5, 5])
    for shown, last in ((None, False), (image.roll(1, 0) * 0.9 + 0.05, True)):
        masked = masked_image(image, mask, shown)
        plain = base.encode(masked)
        latents = base.mark_grey(plain, masked, mask)
        grey = ~base.differs_from_grey(latents)
        assert torch.equal(grey, expected & torch.tensor(not last))
        assert torch.equal(latents[~expected.expand_as(latents)], plain[~expected.expand_as(plain)])
        levels = base.training_timesteps(t, latents, base.latent_mask(mask))
        assert levels.tolist() == ([STEPS - 1] * 2 if last else [5, 5])
    assert base.differs_from_grey(base.encode(masked_image(image, mask))).all(), "unmarked it is not known"
