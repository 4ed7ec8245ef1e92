"""All stages of a base, a step or two each, from pictures to a folder that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ldm.config.schema import load_config
from ldm.models.base import base_state, load_base, save_base
from scripts import pretrain
from tests.fixtures.pictures import write_sources
from tests.fixtures.small import YAML, small_base

pytest.importorskip("efficientnet_lite_pytorch", reason="needs the `pretrain` extra")
pytestmark = pytest.mark.filterwarnings("ignore")


OTHER = "    autoencoder: residual\n    latent_channels: 6\n    prediction: v\n    vae_scale: 1.0\n"


def settings(folder: Path) -> list[str]:
    sizes = YAML.format(base="none").replace("vae_channels: [32, 32]", "vae_channels: [12]")
    (folder / "sizes.yaml").write_text(sizes.replace("train:", f"{OTHER}train:"))
    (folder / "empty.yaml").write_text("{}\n")
    save_base(small_base(), folder / "small")
    (folder / "small.yaml").write_text(YAML.format(base=folder / "small"))
    stages = [f"{s}.{k}" for s in ("vae", "unet") for k in ("batch_size=2", "workers=0", "steps=2")]
    return [
        "--config",
        str(folder / "empty.yaml"),
        f"sizes={folder}/sizes.yaml",
        f"start_from={folder}/small.yaml",
        f"logdir={folder}/logs",
        f"export={folder}/base",
        f"pack.sources={folder}/pictures",
        f"pack.file={folder}/pack.zip",
        "pack.held_out=2",
        "pack.held_out_relit=2",
        "precision=32-true",
        "vae.size=16",
        "unet.checkpoint_every=2",
        "unet.reuse=1",
        "unet.validated=2",
        *stages,
    ]


def test_from_pictures_to_a_base_that_loads_and_goes_on(tmp_path: Path) -> None:
    write_sources(tmp_path / "pictures")
    given = settings(tmp_path)
    pretrain.main(["all", *given])
    architecture = load_config(tmp_path / "sizes.yaml").base.architecture
    first = base_state(load_base(tmp_path / "base", architecture))
    assert first["unet.conv_in.weight"].shape[1] == 13

    known = (tmp_path / "sizes.yaml").read_text().replace("path: none", f"path: {tmp_path}/base")
    (tmp_path / "first.yaml").write_text(known)
    pretrain.main(["unet", *given, f"start_from={tmp_path}/first.yaml", f"logdir={tmp_path}/more"])
    pretrain.main(["export", *given, f"logdir={tmp_path}/more", f"export={tmp_path}/better"])
    second = base_state(load_base(tmp_path / "better", architecture))
    changed = {k for k, v in first.items() if not torch.equal(v, second[k])}
    assert changed and not any(name.startswith("vae.") for name in changed)
    assert any(name.startswith("unet.") for name in changed)

    pretrain.main(["vae", *given, f"start_from={tmp_path}/first.yaml", f"logdir={tmp_path}/vae"])
    vae = load_file(tmp_path / "vae/vae.safetensors")
    own = {k.removeprefix("vae."): v for k, v in first.items() if k.startswith("vae.")}
    far = [(vae[k] - own[k]).norm() / (own[k].norm() + 1e-3) for k in vae if k.startswith("decoder.")]
    assert 0 < max(far) < 0.5, "it continues from the base's VAE"


def test_from_another_base_limited_by_time_and_resumed(tmp_path: Path) -> None:
    write_sources(tmp_path / "pictures")
    given = [*settings(tmp_path), "vae.minutes=5", "unet.frozen_encoder=true", "unet.checkpoint_every=1"]
    pretrain.main(["all", *given])
    assert {file.name for file in (tmp_path / "logs/unet").glob("*_scene.jpg")} == {
        "000001_scene.jpg",
        "000002_scene.jpg",
    }
    pretrain.main(["unet", *given, "unet.steps=3", "unet.minutes=5"])
    assert (tmp_path / "logs/unet/000003_scene.jpg").is_file(), "it continues from step 2"


def test_only_the_residual_autoencoder_is_trained(tmp_path: Path) -> None:
    given = settings(tmp_path)
    (tmp_path / "sizes.yaml").write_text(YAML.format(base="none"))
    with pytest.raises(ValueError, match="autoencoder is kl; only a residual one is trained here"):
        pretrain.main(["vae", *given])
