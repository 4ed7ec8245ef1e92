"""The comparison is complete, says nothing twice, and shrinks to what is chosen."""

from __future__ import annotations

import pytest

from ldm.evaluation.ablations import Comparison, ablations
from ldm.evaluation.methods import Method

PLMS = {"sample.sampler": "plms", "sample.steps": 50}
PUBLISHED = [
    Method("paper-kv", "", learning={"max_steps": 80, "warmup_steps": 200, "lr_final": 1.0}, insertion=PLMS),
    Method("paper-crossattn", "", learning={"max_steps": 80, "freeze_model": "crossattn"}, insertion=PLMS),
]
PRESETS = {"exact": {"sampler": "plms", "steps": 50}, "fast": {"deep_cache_interval": 2, "precision": "bf16"}}


def made(**other: object) -> Comparison:
    settings = {
        "freeze_model": "crossattn",
        "max_steps": 800,
        "sampler": "dpm++",
        "steps": 16,
        "guidance_scale": 5.0,
    }
    settings |= {"cached_samples": 384, "single_view": 0.5, "presets": PRESETS, "published": PUBLISHED}
    return ablations(**settings | other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"freeze_model": "crossattn-kv", "max_steps": 4000, "sampler": "plms", "steps": 50},
        {"guidance_scale": 3.0},
    ],
)
def test_series_and_claims_are_of_methods_that_are_made(settings: dict) -> None:
    full = made(**settings)
    told = {name for names in full.tables.values() for name in names}
    assert told == set(full.methods) and full.recipe in told
    assert {x for claim in full.claims for x in (claim.better, claim.worse)} <= told
    assert all(name == method.name for name, method in full.methods.items())


def test_no_two_methods_do_the_same() -> None:
    full = made()
    done = [
        (
            v.kind,
            sorted(v.learning.items()),
            sorted(v.insertion.items()),
            v.images,
            v.same_category,
        )
        for v in full.methods.values()
    ]
    assert len({str(x) for x in done}) == len(done)


def test_the_recipe_stands_in_every_table_of_its_own() -> None:
    full = made()
    for title in ("Training steps", "Samplers", "Guidance", "Presets"):
        assert full.recipe in full.tables[title]
    steps = [full.methods[name].learning.get("max_steps", 800) for name in full.tables["Training steps"]]
    assert steps == [100, 200, 400, 800]
    solvers = [full.methods[name].insertion for name in full.tables["Samplers"] if name != full.recipe]
    assert {x["sample.steps"] for x in solvers} == {4, 8, 16} and len(solvers) == 4 * 3 - 1
    assert {"sample.sampler": "dpm++", "sample.steps": 16} not in solvers, "that is the recipe"
    scales = [full.methods[n].insertion.get("sample.guidance_scale", 5) for n in full.tables["Guidance"]]
    assert scales == [1.0, 2.5, 5.0, 7.5]


def test_cached_samples_single_views_and_presets_are_compared_where_the_recipe_has_others() -> None:
    full = made()
    assert full.methods["tokens-crossattn-no-cached-samples"].learning["cached_samples"] == 0
    fast = full.methods["tokens-crossattn-fast"]
    assert fast.insertion == {"sample.deep_cache_interval": 2, "sample.precision": "bf16"}
    assert fast.learning == full.methods[full.recipe].learning
    assert full.methods["tokens-crossattn-all-views"].learning["single_view"] == 0
    plain = made(cached_samples=0, single_view=0.0, presets={})
    assert set(full.methods) - set(plain.methods) == {
        f"tokens-crossattn-{name}" for name in ("no-cached-samples", "all-views", "exact", "fast")
    }
    assert not any(claim.equal for claim in plain.claims)
    assert all(full.methods[name] == method for name, method in plain.methods.items())


def test_the_papers_schedule_never_passes_forty_percent_of_its_rate() -> None:
    paper = Method(
        "paper-kv", "the paper", learning={"max_steps": 4000, "warmup_steps": 10_000, "lr_final": 1.0}
    )
    learning = made(published=[paper]).methods["tokens-crossattn-paper-rate"].learning
    assert 800 / learning["warmup_steps"] == pytest.approx(0.4) and learning["lr_final"] == 1.0


def test_without_a_published_recipe_nothing_is_said_of_the_paper() -> None:
    plain = made(published=[])
    assert not any("paper" in name for name in plain.methods)
    assert not any("the paper" in claim.text for claim in plain.claims)


def test_a_choice_keeps_what_it_can_tell() -> None:
    few = made().of(["paper-zero-shot", "paper-kv", "paper-none-kv"])
    assert list(few.tables) == ["The paper's recipe"]
    assert [claim.worse for claim in few.claims] == ["paper-zero-shot", "paper-none-kv"]
    with pytest.raises(ValueError, match="no method linear-kw; there are flat, poisson"):
        made().of(["linear-kw"])
