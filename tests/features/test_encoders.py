"""Encoders give what the published models give, and say what is missing."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, Dinov2Model

from ldm.features.encoders import CLIP, DINO, Encoder, load_clip, load_dino
from ldm.models.conditioner import clip_normalised
from tests.fixtures.networks import write_clip, write_dino


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("judges") / "clip")


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dino(tmp_path_factory.mktemp("judges") / "dino")


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_clip_gives_the_projected_embedding_of_the_whole_model(clip: Path) -> None:
    encoder, shown = load_clip(clip), clip_normalised(images())
    whole = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        seen = whole.vision_model(shown).pooler_output @ whole.visual_projection.weight.T
    assert torch.allclose(encoder(shown), seen, atol=1e-5) and seen.shape == (2, 12)
    assert torch.equal(encoder.normalised(images()), shown)


def at_224(positions: torch.Tensor) -> torch.Tensor:
    """Positions of 37 x 37 patches at 16 x 16, as in torch.hub: patch i is read at (i + 1/2) 37 / 16.1 - 1/2.

    Written with Keys' bicubic kernel (a = -3/4, as torch has it), one axis after the other.
    """
    weights = torch.zeros(16, 37)
    for i in range(16):
        place = (i + 0.5) * 37 / 16.1 - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
            weights[i, min(max(tap, 0), 36)] += near if x <= 1 else far
    grid = torch.einsum("ih,jw,hwd->ijd", weights, weights, positions[0, 1:].reshape(37, 37, -1))
    return torch.cat([positions[:, :1], grid.reshape(1, 256, -1)], dim=1)


def test_dino_gives_the_class_token_behind_the_last_norm(dino: Path) -> None:
    encoder, model = load_dino(dino), Dinov2Model.from_pretrained(dino).eval()
    shown = encoder.normalised(images())
    positions = model.embeddings.position_embeddings
    assert positions.shape[1] == 1 + 37**2  # published for 518 px
    with torch.no_grad():
        theirs = model(shown).last_hidden_state[:, 0]
        positions.data = at_224(positions.data)
        hidden = model(shown, output_hidden_states=True).hidden_states[-1]
        seen = model.layernorm(hidden)[:, 0]
    assert torch.allclose(encoder(shown), seen, atol=1e-5)
    assert not torch.allclose(encoder(shown), theirs, atol=1e-5)  # transformers interpolates otherwise
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = encoder.normalised(torch.zeros(1, 3, 2, 2))[0, :, 0, 0]
    assert torch.allclose(grey, (0.5 - mean) / std)


def test_a_name_tells_weights_apart(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "clip"
    other.mkdir()
    (other / "config.json").write_text((clip / "config.json").read_text())
    weights = load_file(clip / "model.safetensors")
    key = "visual_projection.weight"
    save_file(weights | {key: weights[key] + 0.1}, other / "model.safetensors", {"format": "pt"})
    names = [load_clip(folder).name for folder in (clip, clip, other)]
    assert names[0] == names[1] != names[2] and all(name.startswith("clip ") for name in names)


@pytest.mark.parametrize(
    ("load", "flag", "published"), [(load_clip, "--clip", CLIP), (load_dino, "--dino", DINO)]
)
def test_what_is_missing_is_said_with_model_file_and_flag(
    load: type[Encoder], flag: str, published: str, tmp_path: Path, clip: Path, dino: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=rf"config\.json.*{flag}.*{published}"):
        load(tmp_path)
    (tmp_path / "config.json").write_text((clip / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=rf"model\.safetensors.*hf download {published}.*{flag}"):
        load(tmp_path)
    other = dino if load is load_clip else clip
    with pytest.raises(ValueError, match=rf"is no .*lacks.*{flag}"):
        load(other)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path)


def test_weights_that_are_nowhere_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"Hugging Face cache.*hf download {CLIP}"):
        load_clip()
