"""The key map against real modules, the reference values and its own inverse."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ldm.models.ldm_keys import (
    CONDITIONER,
    SD1,
    Blocks,
    diffusers_blocks,
    diffusers_key,
    is_ldm,
    ldm_blocks,
    ldm_key,
    ldm_to_diffusers,
    match_clip_keys,
)
from tests.fixtures import tiny
from tests.fixtures.ldm_names import diffusers_to_ldm

FULL_UNET = {
    "in_channels": 9,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
FULL_VAE = tiny.VAE | {"block_out_channels": (128, 256, 512, 512)}
FULL_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
MIXED_UNET = {  # one level without attention at the top, none below: unlike Stable Diffusion in every count
    "in_channels": 9,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 48,
}
ONE_LEVEL_UNET = tiny.UNET | {
    "block_out_channels": (32,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}
PLAIN_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 1,
    "mid_block_add_attention": False,
}


def meta_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes_of(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}


def base_state(unet: nn.Module, vae: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, module in (("unet", unet), ("vae", vae))
        for key, value in module.state_dict().items()
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return tiny.golden()


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["unet", "unet1"])
def test_converted_unet_meets_reference(golden: dict[str, Tensor], tokens: str) -> None:
    eps = tiny.loaded_unet()(golden["unet.x"], golden["unet.t"], golden[f"{tokens}.context"]).sample
    torch.testing.assert_close(eps, golden[f"{tokens}.eps"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_converted_vae_meets_reference(golden: dict[str, Tensor]) -> None:
    vae = tiny.loaded_vae()
    posterior = vae.encode(golden["vae.image"]).latent_dist
    torch.testing.assert_close(posterior.mean, golden["vae.mean"], atol=1e-4, rtol=0)
    torch.testing.assert_close(posterior.logvar, golden["vae.logvar"], atol=1e-4, rtol=0)
    decoded = vae.decode(golden["vae.z"]).sample
    torch.testing.assert_close(decoded, golden["vae.decoded"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_converted_clip_meets_reference(golden: dict[str, Tensor]) -> None:
    features = tiny.loaded_clip()(golden["cond.few_shot"]).last_hidden_state
    torch.testing.assert_close(features, golden["cond.few_shot_features"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["unet", "vae", "conditioner.clip"])
def test_full_size_names_and_shapes_are_those_of_the_modules(name: str) -> None:
    ours = ldm_to_diffusers(meta_state(tiny.shapes("full")))
    with torch.device("meta"):
        module = {
            "unet": lambda: UNet2DConditionModel(**FULL_UNET),
            "vae": lambda: AutoencoderKL(**FULL_VAE),
            "conditioner.clip": lambda: CLIPVisionModel(CLIPVisionConfig(**FULL_CLIP)),
        }[name]()
    assert shapes_of(tiny.below(ours, name)) == shapes_of(match_clip_keys(module.state_dict()))


def test_full_size_map_is_one_to_one() -> None:
    shapes = tiny.shapes("full")
    ours = ldm_to_diffusers(meta_state(shapes))
    assert len(ours) == len(shapes)
    assert shapes_of(diffusers_to_ldm(ours)) == shapes


@pytest.mark.parametrize("prior_encoder", [True, False])
@pytest.mark.parametrize("clip_prefix", ["vision_model.", ""])
def test_round_trip_keeps_every_weight(prior_encoder: bool, clip_prefix: str) -> None:
    state = tiny.ldm_state(prior_encoder=prior_encoder)
    given = {key.replace("vision_model.", clip_prefix): value for key, value in state.items()}
    ours = ldm_to_diffusers(given)
    assert ("conditioner.prior_encoder.prior_block.1.weight" in ours) == prior_encoder
    assert "conditioner.clip.embeddings.class_embedding" in ours
    back = diffusers_to_ldm(ours)
    assert shapes_of(back) == shapes_of(state)
    assert all(back[key].data_ptr() == value.data_ptr() for key, value in state.items()), "copied or mixed up"


def test_extras_are_ignored() -> None:
    state = tiny.ldm_state()
    clip = "cond_stage_model.transformer.vision_model.embeddings.position_ids"
    names = [
        "betas",
        "alphas_cumprod_prev",
        "posterior_variance",
        "sqrt_recipm1_alphas_cumprod",
        "global_step",
    ]
    extras = {
        key: torch.zeros(3) for key in [*names, "model_ema.decay", "model_ema.diffusion_modelout2bias", clip]
    }
    assert ldm_to_diffusers(state | extras).keys() == ldm_to_diffusers(state).keys()


@pytest.mark.parametrize("vae_config", [PLAIN_VAE, tiny.VAE])
@pytest.mark.parametrize("unet_config", [MIXED_UNET, ONE_LEVEL_UNET, tiny.UNET | {"layers_per_block": 3}])
def test_other_block_counts_round_trip(unet_config: dict, vae_config: dict) -> None:
    with torch.device("meta"):
        ours = base_state(UNet2DConditionModel(**unet_config), AutoencoderKL(**vae_config))
    ldm = diffusers_to_ldm(ours)
    assert ldm_blocks(ldm) == diffusers_blocks(ours)
    assert shapes_of(ldm_to_diffusers(ldm)) == shapes_of(ours)


def test_blocks_are_counted_by_the_keys() -> None:
    full = tiny.shapes("full")
    assert ldm_blocks(full) == SD1
    with torch.device("meta"):
        ours = base_state(UNet2DConditionModel(**MIXED_UNET), AutoencoderKL(**PLAIN_VAE))
    expected = Blocks(levels=3, layers=1, plain_up_levels=frozenset(), vae_levels=3, vae_layers=1)
    assert diffusers_blocks(ours) == expected


def test_ldm_blocks_of_a_mixed_unet_are_numbered_as_ldm_does() -> None:
    with torch.device("meta"):
        keys = diffusers_to_ldm(
            base_state(UNet2DConditionModel(**MIXED_UNET), AutoencoderKL(**PLAIN_VAE))
        ).keys()
    unet = "model.diffusion_model."
    assert f"{unet}input_blocks.1.1.norm.weight" not in keys, "the top level has no attention"
    assert f"{unet}input_blocks.2.0.op.weight" in keys
    assert f"{unet}input_blocks.5.1.norm.weight" in keys, "the last input block: 3 levels x 2"
    assert f"{unet}output_blocks.1.2.conv.weight" in keys
    assert f"{unet}output_blocks.5.0.in_layers.0.weight" in keys
    assert "first_stage_model.decoder.up.2.upsample.conv.weight" in keys


@pytest.mark.parametrize(
    ("ldm", "ours"),
    [
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        ),
        ("model.diffusion_model.output_blocks.11.1.norm.bias", "unet.up_blocks.3.attentions.2.norm.bias"),
        ("model.diffusion_model.output_blocks.2.1.conv.bias", "unet.up_blocks.0.upsamplers.0.conv.bias"),
        ("model.diffusion_model.output_blocks.5.2.conv.bias", "unet.up_blocks.1.upsamplers.0.conv.bias"),
        (
            "model.diffusion_model.middle_block.2.emb_layers.1.bias",
            "unet.mid_block.resnets.1.time_emb_proj.bias",
        ),
        ("first_stage_model.decoder.up.3.block.0.norm1.bias", "vae.decoder.up_blocks.0.resnets.0.norm1.bias"),
        ("first_stage_model.decoder.mid.attn_1.q.bias", "vae.decoder.mid_block.attentions.0.to_q.bias"),
        ("cond_stage_model.mapper.resblocks.4.ln_1.bias", "conditioner.mapper.resblocks.4.ln_1.bias"),
        ("learnable_vector", "conditioner.learnable_vector"),
        ("proj_out.bias", "conditioner.proj_out.bias"),
    ],
)
def test_single_keys(ldm: str, ours: str) -> None:
    assert diffusers_key(ldm) == ours
    assert ldm_key(ours) == ldm


def test_single_keys_follow_the_blocks() -> None:
    blocks = Blocks(levels=3, layers=1, plain_up_levels=frozenset())
    assert diffusers_key("model.diffusion_model.input_blocks.3.1.norm.bias", blocks) == (
        "unet.down_blocks.1.attentions.0.norm.bias"
    )


def test_a_part_of_a_base_counts_as_stable_diffusion() -> None:
    """Delta files hold a few tensors only: indices cannot be read off them."""
    delta = {key: value for key, value in tiny.ldm_state().items() if ".attn2." in key}
    ours = ldm_to_diffusers(delta)
    assert ours.keys() == {key for key in ldm_to_diffusers(tiny.ldm_state()) if ".attn2." in key}
    assert shapes_of(diffusers_to_ldm(ours)) == shapes_of(delta)


@pytest.mark.parametrize("key", ["foo.bar", "model.diffusion_model.input_blocks.40.1.norm.bias"])
def test_unknown_ldm_key_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match=r"foo\.bar|blocks\.40.*: not LDM names of a base's weights; give"):
        ldm_to_diffusers({key: torch.zeros(1)})


def test_diffusers_names_without_an_ldm_name_are_an_error() -> None:
    state = {f"conditioner.few_shot.{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(ValueError, match=r"few_shot\.2 and 2 more: not diffusers names") as caught:
        diffusers_to_ldm(state)
    assert "\n" not in str(caught.value)


def test_two_names_of_one_weight_are_an_error() -> None:
    start, end = "cond_stage_model.transformer.", "post_layernorm.bias"
    with pytest.raises(ValueError, match=r"vision_model\.post_layernorm\.bias: two names of one weight"):
        ldm_to_diffusers({f"{start}{end}": torch.zeros(1), f"{start}vision_model.{end}": torch.zeros(1)})


def test_clip_keys_match_the_module() -> None:
    bare, prefixed = {"clip.a.b": torch.zeros(1)}, {"clip.vision_model.a.b": torch.zeros(1)}
    assert match_clip_keys(bare, prefixed) == prefixed
    assert match_clip_keys(prefixed, bare) == bare
    assert match_clip_keys(prefixed) == bare
    assert match_clip_keys(bare, ["other"]) == bare


def test_is_ldm_recognises_ldm_names() -> None:
    shapes = tiny.shapes()
    assert is_ldm(shapes)
    assert not is_ldm(ldm_to_diffusers(meta_state(shapes)))
    assert all(is_ldm([f"{name}.x"]) for name in CONDITIONER)
