"""The paper's recipe as methods: every value is the file's, only steps, warm-up and rates are scaled."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ldm.config.evaluation_cli import published, samples, scaled, with_learning
from ldm.config.schema import Config, learning_settings, load_config
from ldm.evaluation.reproduction import Comparison, comparison

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = {"paper-kv": CONFIGS / "paper.yaml", "paper-crossattn": CONFIGS / "paper_virtual.yaml"}
RATES = ("lr", "lr_conditioner", "lr_tokens", "lr_prior_encoder")
SCALED = ("max_steps", "warmup_steps", *RATES)


def study(config: str = "mini") -> Config:
    return load_config(CONFIGS / f"{config}.yaml")


def compared(config: str = "mini") -> Comparison:
    own = study(config)
    recipes = [published(file, own) for file in RECIPES.values()]
    return comparison(own.train.few_shot, own.train.freeze_model, recipes)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_not_scaled_is_the_files(name: str) -> None:
    file = load_config(RECIPES[name])
    method = published(RECIPES[name], study())
    assert method.name == name and method.learning["freeze_model"] == file.train.freeze_model
    assert {"few_shot": "linear", "few_shot_features": "raw", "batch_size": 1, "drop_context": 0.0,
            "cached_samples": 0, "precision": "32-true", "posterior": "sample", "decayed": "all",
            "augment_odds": "drawn", "crop_squares": False, "mask_resize": "bilinear"}.items() \
        <= method.learning.items()  # fmt: skip
    told = learning_settings(file)
    kept = {key: value for key, value in method.learning.items() if key not in (*SCALED, "freeze_model")}
    assert kept.items() <= told.items()
    assert set(told) - set(kept) - set(SCALED) == {
        "workers", "devices", "accelerator", "gradient_checkpointing", "seed",
    }  # fmt: skip
    s = method.insertion
    expected = {"sampler": "plms", "steps": 50, "guidance_scale": 5.0}
    expected |= {"detail_transfer": 0.0, "reference_view": 0}
    assert {f"sample.{key}": value for key, value in expected.items()}.items() <= s.items()  # not mini's
    assert s["insert.blend"] == "paper" and s["sample.precision"] == "fp32"


def test_at_the_papers_own_size_it_is_the_file_itself() -> None:
    for name, config in (("paper-kv", "v"), ("paper-crossattn", "v_virtual")):
        own = study(config)
        own = replace(own, train=replace(own.train, batch_size=1, accumulate_grad_batches=1))
        learning = published(RECIPES[name], own).learning
        file = asdict(load_config(RECIPES[name]).train)
        assert {key: learning[key] for key in SCALED} == {key: file[key] for key in SCALED}


def moved(train: dict) -> dict[str, float]:
    """How far Adam moves weights at most: the sum of the rates over the steps of a linear warm-up."""
    steps, warmup_steps = train["max_steps"], train["warmup_steps"]
    share = sum(min(1, (step + 1) / warmup_steps) for step in range(steps))
    return {name: train[name] * share for name in RATES}


@pytest.mark.parametrize("steps", [40, 800, 4000, 8000])
def test_scaled_to_other_steps_weights_move_as_far(steps: int) -> None:
    file = load_config(RECIPES["paper-kv"]).train
    other = scaled(file, steps)
    assert other.max_steps == steps and other.warmup_steps / steps == pytest.approx(2.5)
    assert moved(asdict(other)) == pytest.approx(moved(asdict(file)), rel=0.03)
    assert {k: v for k, v in asdict(other).items() if k not in SCALED}.items() <= asdict(file).items()


def test_it_sees_as_many_samples_as_the_studys_recipe() -> None:
    own = study()
    assert samples(own.train) == 480
    learning = published(RECIPES["paper-kv"], own).learning
    assert (learning["max_steps"], learning["batch_size"], learning["warmup_steps"]) == (480, 1, 1200)
    assert learning["lr"] == pytest.approx(4000 / 480 * 1e-5)  # fewer steps at a higher rate


def test_a_rate_that_stands_for_another_is_not_scaled() -> None:
    train = replace(load_config(RECIPES["paper-kv"]).train, lr_prior_encoder=-1.0)
    assert scaled(train, 40).lr_prior_encoder == -1


def test_the_papers_claims_are_told_of_the_papers_recipe() -> None:
    full = compared()
    told = {claim.text: claim for claim in full.claims}
    assert len(told) == len(full.claims)
    papers = [claim for claim in full.claims if claim.text.startswith("the paper")]
    assert len(papers) == 4
    assert all(name.startswith("paper-") for claim in papers for name in (claim.better, claim.worse))
    assert told["ours: the recipe beats the paper's"].worse == "paper-crossattn"
    assert {"linear-kv", "tokens-crossattn", "paper-kv", "paper-crossattn"} <= set(full.tables["Methods"])
    none, kv, zero = (full.methods[f"paper-{name}"] for name in ("none-kv", "kv", "zero-shot"))
    assert none.learning == dict(kv.learning) | {"few_shot": "none"}
    assert (zero.kind, zero.insertion) == ("zero-shot", kv.insertion)
    assert not full.methods["paper-kv-alone"].same_category


def test_settings_go_into_the_section_that_has_them() -> None:
    own = with_learning(study(), published(RECIPES["paper-kv"], study()).learning)
    assert (own.train.few_shot, own.data.mask_resize, own.data.augment_odds) == (
        "linear",
        "bilinear",
        "drawn",
    )
    assert own.data.root == study().data.root and own.sample == study().sample
    assert own.train.seed == study().train.seed
