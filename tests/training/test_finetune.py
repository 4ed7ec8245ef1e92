"""Fine-tuning: the reference values, what trains, what stays frozen, and resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, default_collate

from ldm.data.insertset import load_insertset
from ldm.data.pairs import SampleOptions, TrainingPairs
from ldm.models.base import Base
from ldm.models.conditioner import clip_normalised, raw_pixels
from ldm.models.ldm_keys import diffusers_blocks, ldm_key
from ldm.objects.delta import FREEZE_MODELS
from ldm.objects.few_shot import prepare_few_shot
from ldm.training.checkpoints import Checkpoints, find_checkpoint
from ldm.training.finetune import FineTune, Tuning
from ldm.training.samples import EncodedSamples, Order, SampleModule, draw_noise, encoded
from ldm.training.trainer import LoopOptions, build_trainer
from tests.fixtures import tiny
from tests.fixtures.small import SMALL, SMALL_IMAGES, object_folder, small_base, state_of

RATE = {"lr": 1e-2, "lr_conditioner": 1e-2, "lr_tokens": 1e-2, "warmup_steps": 2}


@pytest.mark.parametrize("mode", FREEZE_MODELS)
def test_loss_and_gradients_are_those_of_the_papers_code(mode: str) -> None:
    golden, base = tiny.golden(), tiny.loaded_base()
    tiny.use_prior_encoder(base, golden["cond.few_shot_features"])
    module = FineTune(base, Tuning(mode))
    g = {key.removeprefix("train."): value for key, value in golden.items() if key.startswith("train.")}
    dropped = torch.zeros(2, dtype=torch.bool)
    samples = {"x_0": g["z"], "masked": g["masked_latents"], "latent_mask": 1 - g["mask"]}
    samples["pooled"] = base.conditioner.pooled(g["reference"])
    loss = module.loss(samples, g["t"], g["noise"], dropped)
    loss.backward()

    assert float(loss.detach()) == pytest.approx(float(g[f"{mode}.loss"]), rel=1e-3)
    blocks, start = diffusers_blocks(base.state_dict()), f"{mode}.grad_norm."
    norms = {key.removeprefix(start): float(value) for key, value in g.items() if key.startswith(start)}
    for name, weight in module.trained_weights().items():
        if name.startswith("unet.") or name == "conditioner.proj_out.weight":
            key = ldm_key(name, blocks).removeprefix("model.diffusion_model.")
            assert weight.grad is not None
            assert float(weight.grad.norm()) == pytest.approx(norms.pop(key), rel=1e-3), name
    assert not norms


def data(root: Path, **changes: Any) -> TrainingPairs:
    options = SampleOptions(**({"seed": 1} | changes))
    return TrainingPairs(load_insertset(root), SMALL.image_size, SMALL.reference_size, options)


def make(
    root: Path,
    few_shot: str = "tokens",
    mode: str = "crossattn-kv",
    seed: int = 0,
    card: Any = None,
    **changes: Any,
) -> FineTune:
    base = small_base().requires_grad_(True)
    crops = SMALL_IMAGES.few_shot(load_insertset(root))
    prepare_few_shot(base, crops, few_shot, "clip", torch.Generator().manual_seed(0))
    tuning = Tuning(mode, **(RATE | {"drop_context": 0.3, "max_steps": 1} | changes))
    return FineTune(base, tuning, SampleOptions(seed), card=card or {"metadata": {}})


def fit(
    module: FineTune,
    samples: Dataset,
    run: Path,
    steps: int,
    *,
    every: int = 10**6,
    resume: Path | None = None,
    **options: Any,
) -> FineTune:
    loop = LoopOptions(**({"batch_size": 2, "accelerator": "cpu", "devices": 1} | options))
    trainer = build_trainer(run, [Checkpoints(run, every, keep=9)], steps, loop)
    trainer.fit(module, datamodule=SampleModule(samples, loop.batch_size, loop.workers), ckpt_path=resume)
    assert trainer.global_step == steps
    return module


def same(a: Base, b: Base) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("mode", FREEZE_MODELS)
@pytest.mark.parametrize("few_shot", ["none", "linear", "tokens"])
def test_trains_exactly_the_objects_weights(tmp_path: Path, mode: str, few_shot: str) -> None:
    module = make(object_folder(tmp_path / "toy"), few_shot, mode)
    before = state_of(module.base)
    fit(module, data(tmp_path / "toy"), tmp_path / "run", 3)
    changed = {key for key, value in module.base.state_dict().items() if not torch.equal(value, before[key])}
    assert {name for name, p in module.base.named_parameters() if p.requires_grad} == set(module.trained)
    # over one key, softmax is 1: without few-shot tokens there is no gradient to K (and Q)
    idle = {name for name in module.trained if few_shot == "none" and ("to_k" in name or "to_q" in name)}
    assert set(module.trained) - idle <= changed <= set(module.trained)


@pytest.mark.parametrize(
    ("few_shot", "accumulate_grad_batches"), [("tokens", 1), ("tokens", 2), ("linear", 3)]
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, few_shot: str, accumulate_grad_batches: int
) -> None:
    root = object_folder(tmp_path / "toy")
    options: dict[str, Any] = {
        "batch_size": 1,
        "accumulate_grad_batches": accumulate_grad_batches,
        "every": 3,
    }
    whole = fit(make(root, few_shot), data(root), tmp_path / "whole", 6, **options)
    fit(make(root, few_shot), data(root), tmp_path / "part", 3, **options)
    resumed = make(root, few_shot)
    resumed.base.conditioner.few_shot_features = None if few_shot == "tokens" else torch.zeros(3, 5, 16)
    fit(resumed, data(root), tmp_path / "part", 6, resume=find_checkpoint(tmp_path / "part"), **options)
    assert same(whole.base, resumed.base)
    saved = [torch.load(find_checkpoint(tmp_path / run), weights_only=True) for run in ("whole", "part")]
    moments = [[v for s in c["optimizer_states"][0]["state"].values() for v in s.values()] for c in saved]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert saved[0]["lr_schedulers"] == saved[1]["lr_schedulers"]


def test_cached_samples_are_the_encoded_pairs(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    base, pairs = small_base(), data(root)
    cached = EncodedSamples(base, pairs, SampleOptions(3, cached_samples=11))
    assert all(len(value) == 11 for value in cached.samples.values())
    drawn = [cached[i] for i in range(200)]
    again = EncodedSamples(base, pairs, SampleOptions(3, cached_samples=11))
    for i, sample in enumerate(drawn):
        assert all(torch.equal(again[i][key], value) for key, value in sample.items())
    seen = {tuple(sample["pooled"].flatten().tolist()) for sample in drawn}
    assert len(seen) == len({tuple(row) for row in cached.samples["pooled"].flatten(1).tolist()}), (
        "each one is drawn"
    )
    pair = default_collate([pairs[9]])
    one = encoded(base, pair) | {"view": pair["view"]}
    assert one.keys() == cached.samples.keys()
    assert all(torch.allclose(one[key][0], value[9], atol=1e-5) for key, value in cached.samples.items())


def test_a_run_with_cached_samples_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")

    def run(name: str, steps: int, resume: Path | None = None) -> FineTune:
        module = make(root)
        cached = EncodedSamples(module.base, data(root), SampleOptions(1, cached_samples=5))
        return fit(module, cached, tmp_path / name, steps, every=2, resume=resume)

    whole = run("whole", 4)
    run("part", 2)
    resumed = run("part", 4, find_checkpoint(tmp_path / "part"))
    assert same(whole.base, resumed.base)


def test_the_seed_and_nothing_else_decides(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    one = fit(make(root), data(root), tmp_path / "1", 2)
    torch.rand(5)
    again = fit(make(root), data(root), tmp_path / "2", 2, workers=1)
    other = fit(make(root, seed=1), data(root), tmp_path / "3", 2)
    assert same(one.base, again.base) and not same(one.base, other.base)


@pytest.mark.parametrize(("few", "same_category", "batch_size"), [(1, 0, 1), (1, 1, 3), (5, 2, 4)])
def test_any_number_of_pictures_and_samples(
    tmp_path: Path, few: int, same_category: int, batch_size: int
) -> None:
    root = object_folder(tmp_path / "toy", few, same_category)
    module = fit(make(root), data(root), tmp_path / "run", 1, batch_size=batch_size)
    tokens = module.base.conditioner.few_shot()
    assert tokens is not None and len(tokens) == few


def test_half_precision_keeps_full_precision_weights(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    module = fit(make(root), data(root), tmp_path / "run", 2, precision="bf16-mixed")
    assert all(
        w.dtype == torch.float32 and torch.isfinite(w).all() for w in module.trained_weights().values()
    )


def test_a_dropped_context_trains_the_learnable_vector_alone(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    module = make(root, drop_context=1.0, weight_decay=0.0)
    before = state_of(module.base)
    fit(module, data(root), tmp_path / "run", 2)
    changed = {k for k, v in module.base.state_dict().items() if not torch.equal(v, before[k])}
    assert "conditioner.learnable_vector" in changed and "conditioner.few_shot_tokens" not in changed
    assert not any("mapper" in key or "proj_out" in key for key in changed if key.startswith("conditioner"))


def test_checkpoints_hold_what_trains_only(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    module = fit(make(root), data(root), tmp_path / "run", 2)
    saved = torch.load(find_checkpoint(tmp_path / "run"), weights_only=True)
    assert set(saved["state_dict"]) == {f"base.{name}" for name in module.trained}


def test_another_mode_or_object_is_not_resumed(tmp_path: Path) -> None:
    root = object_folder(tmp_path / "toy")
    card = {"metadata": {"freeze_model": "crossattn-kv"}}
    fit(make(root, card=card), data(root), tmp_path / "run", 1)
    last = find_checkpoint(tmp_path / "run")
    with pytest.raises(ValueError, match="freeze_model is crossattn, but crossattn-kv"):
        other = make(root, mode="crossattn", card={"metadata": {"freeze_model": "crossattn"}})
        fit(other, data(root), tmp_path / "run", 2, resume=last)
    with pytest.raises(ValueError, match="does not fit what this run trains"):
        fit(make(root, few_shot="none", card=card), data(root), tmp_path / "run", 2, resume=last)


def test_noise_depends_on_the_sample_not_on_the_batch() -> None:
    t, eps, *chosen = draw_noise(torch.arange(6), 5, (4, 2, 2), 0.5)
    parts = [draw_noise(torch.tensor([i]), 5, (4, 2, 2), 0.5) for i in range(6)]
    for whole, part in zip((t, eps, *chosen), zip(*parts, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(part))
    assert len(set(t.tolist())) > 1 and eps.unique().numel() == eps.numel()
    assert not torch.equal(eps, draw_noise(torch.arange(6), 6, (4, 2, 2), 0.5)[1])


def test_the_context_is_dropped_as_often_as_asked() -> None:
    share = draw_noise(torch.arange(2000), 0, (1,), 0.15)[2].float().mean()
    assert 0.12 < float(share) < 0.18
    assert not draw_noise(torch.arange(50), 0, (1,), 0.0)[2].any()


def test_a_single_view_trains_its_own_token_alone(tmp_path: Path) -> None:
    """Of a sample that sees one token only, the tokens of other pictures stay as they were."""
    root = object_folder(tmp_path / "toy")
    module = make(root, drop_context=0.0)
    tokens = module.base.conditioner.few_shot_tokens
    item = TrainingPairs(load_insertset(root), 64, 28, SampleOptions(single_view=1.0))[0]
    batch = {key: value[None] for key, value in item.items()} | {"index": torch.tensor([0])}
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.training_step(batch, 0).backward()
    changed = tokens.grad.abs().sum(1) > 0
    assert changed.tolist() == [i == int(item["view"]) for i in range(len(tokens))]


def test_devices_share_a_batch_out() -> None:
    parts = [[i for batch in Order(2, 1, 3, rank, 2) for i in batch] for rank in range(2)]
    assert parts == [[4, 5, 8, 9], [6, 7, 10, 11]]
    assert [i for batch in Order(4, 1, 3) for i in batch] == sorted(parts[0] + parts[1])


def test_tokens_start_from_the_pooled_features_of_the_crops() -> None:
    base, crops = small_base(), torch.rand(2, 3, 28, 28) * 2 - 1
    prepare_few_shot(base, crops, "tokens")
    tokens = base.conditioner.few_shot()
    assert tokens is not None
    assert torch.equal(tokens, base.conditioner.pooled(clip_normalised(crops)))


@pytest.mark.parametrize(("features", "seen"), [("clip", clip_normalised), ("raw", raw_pixels)])
def test_the_linear_layer_reads_hidden_states(features: str, seen: Any) -> None:
    base, crops = small_base(), torch.rand(2, 3, 28, 28) * 2 - 1
    prepare_few_shot(base, crops, "linear", features, torch.Generator().manual_seed(3))
    c = base.conditioner
    assert c.few_shot_features is not None and c.prior_encoder is not None
    assert torch.equal(c.few_shot_features, c.hidden(seen(crops)))
    first = c.prior_encoder.prior_block[1].weight.detach().clone()
    prepare_few_shot(base, crops, "linear", features, torch.Generator().manual_seed(3))
    assert c.prior_encoder is not None
    assert torch.equal(first, c.prior_encoder.prior_block[1].weight)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="few_shot 'tokn' is unknown"):
        prepare_few_shot(small_base(), torch.zeros(1, 3, 28, 28), "tokn")
    with pytest.raises(ValueError, match="freeze_model 'all' is unknown"):
        FineTune(small_base(), Tuning("all"))
