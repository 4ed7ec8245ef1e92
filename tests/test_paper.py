"""configs/paper.yaml is the published method: its values, a training sample, a step, the file, an insertion.

docs/paper.md names these tests row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from ldm.config.build import blend_of
from ldm.config.build_training import training_run_of
from ldm.config.schema import Config, load_config
from ldm.data import pairs
from ldm.data.insertset import InsertSet, load_insertset
from ldm.data.object_crops import squash
from ldm.data.pairs import TrainingPairs, drawn_odds
from ldm.data.picture import read_rgb
from ldm.data.training_masks import training_mask
from ldm.insertion.blend import Blend
from ldm.models.architecture import Architecture
from ldm.models.base import save_base
from ldm.models.weight_files import read_pickle
from ldm.training.run import build_learner
from ldm.training.samples import posterior_noise
from scripts import get_deltas, inference, train
from tests.fixtures import tiny

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PUBLISHED: dict[str, Any] = {
    "data.augment": True,
    "data.augment_odds": "drawn",
    "data.crop_squares": False,
    "data.mask_resize": "bilinear",
    "train.few_shot": "linear",
    "train.few_shot_features": "raw",
    "train.batch_size": 1,
    "train.accumulate_grad_batches": 1,
    "train.precision": "32-true",
    "train.lr": 1e-5,
    "train.lr_conditioner": 1e-5,
    "train.lr_prior_encoder": 1e-5,
    "train.warmup_steps": 10_000,
    "train.lr_final": 1.0,
    "train.weight_decay": 0.01,
    "train.decayed": "all",
    "train.drop_context": 0.0,
    "train.single_view": 0.0,
    "train.loss": "eps",
    "train.posterior": "sample",
    "train.cached_samples": 0,
    "train.hold_out": "none",
    "train.validate_every": 0,
    "extract.which": "last",
    "extract.format": "ldm",
    "extract.dtype": "fp32",
    "sample.sampler": "plms",
    "sample.steps": 50,
    "sample.guidance_scale": 5.0,
    "sample.guidance_from": "object",
    "sample.guidance_interval": (0.0, 1.0),
    "sample.seed": 321,
    "sample.reference_view": 0,
    "sample.deep_cache_interval": 1,
    "sample.second_pass": 0.0,
    "sample.precision": "fp32",
    "insert.blend": "paper",
    "insert.keep_scene": False,
}
MODES = {"": ("crossattn-kv", 4000), "_virtual": ("crossattn", 2000)}


def value(config: Config, dotted: str) -> Any:
    section, key = dotted.split(".")
    return getattr(getattr(config, section), key)


def flat(config: Config) -> dict[str, Any]:
    return {f"{section}.{key}": v for section, values in asdict(config).items() for key, v in values.items()}


@pytest.mark.parametrize("kind", MODES)
def test_every_value_is_the_published_one(kind: str) -> None:
    config = load_config(CONFIGS / f"paper{kind}.yaml")
    assert {name: value(config, name) for name in PUBLISHED} == PUBLISHED
    assert (config.train.freeze_model, config.train.max_steps) == MODES[kind]
    assert config.base.architecture == Architecture(), "the defaults are Paint-by-Example's sizes"
    assert blend_of(config) == Blend(paper_blur=7)


@pytest.mark.parametrize("kind", MODES)
def test_ours_explains_every_difference(kind: str) -> None:
    files = [CONFIGS / "v.yaml", CONFIGS / f"v{kind}.yaml"]  # the second extends the first, or is it
    ours, paper = flat(load_config(files[-1])), flat(load_config(CONFIGS / f"paper{kind}.yaml"))
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    explained = {
        line.split(":")[0]: "#" in line
        for line in lines
        if line.startswith(tuple("abcdefghijklmnopqrstuvwxyz"))
    }
    for name, mine in ours.items():
        key = name.split(".")[1]
        assert (mine != paper[name]) == explained.get(key, False), f"{name}: {paper[name]} there, {mine} here"


@pytest.fixture(scope="module")
def square_set(tmp_path_factory: pytest.TempPathFactory) -> InsertSet:
    """Two square pictures and a wide one, of noise."""
    root = tmp_path_factory.mktemp("square")
    (root / "data").mkdir()
    (root / "bbox").mkdir()
    noise = np.random.default_rng(0)
    for name, width in (("1", 150), ("2", 150), ("3", 220)):
        pixels = noise.integers(0, 256, (150, width, 3), np.uint8)
        Image.fromarray(pixels).save(root / "data" / f"{name}.png")
        (root / "bbox" / f"{name}.txt").write_text("40 50 95.5 100")
    Image.fromarray(pixels).save(root / "test.png")
    return load_insertset(root)


def published_pairs(insertset: InsertSet) -> Iterator[dict[str, Tensor]]:
    """60 samples as configs/paper.yaml draws them."""
    samples = training_run_of(load_config(CONFIGS / "paper.yaml")).samples
    drawn = TrainingPairs(insertset, 128, 56, samples)
    return (drawn[i] for i in range(60))


def test_square_pictures_are_shown_whole_and_others_cropped(square_set: InsertSet) -> None:
    whole = [squash(read_rgb(sample.image), 128) for sample in square_set.few_shot[:2]]
    shown = [
        any(torch.equal(item["image"], image) for image in whole) for item in published_pairs(square_set)
    ]
    assert 0.5 < np.mean(shown) < 0.85, "two of three pictures are square"


def test_training_masks_have_soft_edges(square_set: InsertSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bilinear without antialiasing, of the binary mask in the crop, and nothing but the edge is soft."""
    made = []
    monkeypatch.setattr(pairs, "training_mask", lambda *args: made.append(training_mask(*args)) or made[-1])
    data, softened = published_pairs(square_set), 0
    for item in data:
        mask, binary = item["mask"], made[-1][0]
        assert float(mask.min()) >= 0 and float(mask.max()) == 1
        if binary.shape[1:] == (150, 150):
            expected = F.interpolate(binary[None], size=(128, 128), mode="bilinear", align_corners=False)[0]
            assert torch.equal(mask, expected)
        soft = (mask > 0) & (mask < 1)
        softened += bool(soft.any())  # an edge may fall between two pixels
        assert soft.sum() < 4 * 2 * 128
        assert not (soft[:, 1:-1, 1:-1] & (F.avg_pool2d(mask, 3, 1) == 1)).any()
    assert softened > 40


def test_augmentation_odds_are_drawn() -> None:
    """Flip 0.7 r, blur and deformation 0.4 r with one r in [0,1]; rotation 0.5."""
    odds = torch.stack([drawn_odds(torch.Generator().manual_seed(seed)) for seed in range(3000)])
    assert torch.allclose(odds.mean(0), torch.tensor([0.35, 0.5, 0.2, 0.2]), atol=0.02)
    assert torch.allclose(odds[:, 0] / 0.7, odds[:, 2] / 0.4) and torch.equal(odds[:, 2], odds[:, 3])
    assert odds[:, 0].min() < 0.01 and 0.69 < odds[:, 0].max() <= 0.7 and (odds[:, 1] == 0.5).all()


def test_latents_are_samples_of_the_posterior() -> None:
    """Golden: mean and log-variance of the published VAE; the noise is each sample's own, standard normal."""
    golden, base = tiny.golden(), tiny.loaded_base()
    noise = torch.randn(golden["vae.mean"].shape, generator=torch.Generator().manual_seed(0))
    expected = golden["vae.mean"] + (golden["vae.logvar"].clamp(-30, 20) / 2).exp() * noise
    latents = base.encode(golden["vae.image"], noise) / base.architecture.vae_scale
    assert (latents - expected).norm() < 1e-4 * expected.norm()
    drawn = posterior_noise(torch.arange(100), 23, 16)
    assert drawn.shape == (200, 4, 16, 16) and torch.equal(
        drawn[[7, 107]], posterior_noise(torch.tensor([7]), 23, 16)
    )
    assert abs(float(drawn.mean())) < 0.01 and abs(float(drawn.std()) - 1) < 0.01


@pytest.mark.parametrize("kind", MODES)
def test_a_step_has_the_published_gradients_decay_and_rate(square_set: InsertSet, kind: str) -> None:
    """Golden gradient norms, with the module that configs/paper.yaml makes."""
    config, base, golden = load_config(CONFIGS / f"paper{kind}.yaml"), tiny.loaded_base(), tiny.golden()
    module = build_learner(base, square_set, training_run_of(config))
    tiny.use_prior_encoder(base, golden["cond.few_shot_features"])
    g = {key.removeprefix("train."): v for key, v in golden.items() if key.startswith("train.")}
    samples = {"x_0": g["z"], "masked": g["masked_latents"], "latent_mask": 1 - g["mask"]}
    samples["pooled"] = base.conditioner.pooled(g["reference"])
    module.loss(samples, g["t"], g["noise"], torch.zeros(2, dtype=torch.bool)).backward()
    weights, start = module.trained_weights(), f"{config.train.freeze_model}.grad_norm."
    total = torch.stack([v for key, v in g.items() if key.startswith(start)]).float().square().sum().sqrt()
    named = [
        w for name, w in weights.items() if name.startswith("unet.") or name == "conditioner.proj_out.weight"
    ]
    mine = torch.stack([w.grad.norm() for w in named if w.grad is not None])
    assert len(mine) == sum(key.startswith(start) for key in g)
    assert float(mine.square().sum().sqrt()) == pytest.approx(float(total), rel=1e-3)
    assert weights["conditioner.learnable_vector"].grad is None, "nothing is dropped"

    made = module.configure_optimizers()
    groups, schedule = made["optimizer"].param_groups, made["lr_scheduler"]["scheduler"]
    assert sum(len(group["params"]) for group in groups) == len(weights)
    assert all(group["weight_decay"] == 0.01 and group["initial_lr"] == 1e-5 for group in groups)
    share = schedule.lr_lambdas[0]
    last = config.train.max_steps
    assert share(0) == pytest.approx(1e-4) and share(last - 1) == pytest.approx(last / 10_000)


def test_no_context_is_dropped_and_the_unconditional_vector_stays(square_set: InsertSet) -> None:
    """AdamW would let a weight without gradient decay if it had one of 0."""
    base = tiny.loaded_base()
    module = build_learner(base, square_set, training_run_of(load_config(CONFIGS / "paper.yaml")))
    frozen = {name for name, weight in module.trained_weights().items() if not weight.requires_grad}
    assert frozen == {"conditioner.learnable_vector"}


def test_the_config_alone_trains_extracts_and_inserts(
    square_set: InsertSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tiny base in place of Paint-by-Example's; the file is the published one of 146 tensors."""
    save_base(tiny.loaded_base(), tmp_path / "base", torch.float32)
    sizes = OmegaConf.load(tiny.config_file(tmp_path / "tiny.yaml", tmp_path / "base"))
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(CONFIGS / "paper.yaml"), sizes), tmp_path / "paper.yaml")
    config = ["--config", str(tmp_path / "paper.yaml")]
    folder = tmp_path / "logs/mug"
    train.main(
        [*config, "--dataset-dir", str(square_set.root), "--logdir", str(tmp_path / "logs"), "--name", "mug",
         "--max_steps", "2", "--accelerator", "cpu", "--preview_every", "0"]
    )  # fmt: skip
    get_deltas.main(["--path", str(folder)])
    file = folder / "mug.ckpt"
    assert len(read_pickle(file)) == 146
    get_deltas.main(["--path", str(folder), *config, "--out", str(tmp_path / "again.ckpt")])
    assert len(read_pickle(tmp_path / "again.ckpt")) == 146
    background, mask = np.zeros((140, 160, 3), np.uint8), np.zeros((140, 160), np.uint8)
    mask[50:90, 60:110] = 255
    Image.fromarray(background).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    inference.main(
        [*config, "--object", str(folder), "--example_img", str(tmp_path / "a.png"), "--mask",
         str(tmp_path / "mask.png"), "--outdir", str(tmp_path / "out"), "--steps", "2", "--device", "cpu"]
    )  # fmt: skip
    after = np.asarray(Image.open(tmp_path / "out/a.png"))
    assert (after[mask == 0] == 0).all() and after[mask > 0].any()
