"""Between two objects: their weights and tokens, mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import torch
from torch import Tensor

from ldm.objects.delta import Delta, differences
from ldm.objects.file import About


def interpolate(
    a: Delta,
    b: Delta,
    share: float,
    parents: Sequence[Mapping[str, str]] = (),
    base_state: Mapping[str, Tensor] | None = None,
) -> Delta:
    """(1 - share) * a + share * b, in weights and few-shot tokens; the reference is the nearer object's.

    The result holds fp16 differences; a weight that one object left alone counts as no difference. Objects of
    tuned values (fp32) need the base's `house_state`. Raises ValueError if bases or numbers of tokens differ.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share:g}: expected 0 (all of the first object) to 1 (all of the second)")
    if a.about.base != b.about.base:
        raise ValueError(
            f"these objects are for two bases, {a.about.base} ({a.about.architecture}) and {b.about.base} "
            f"({b.about.architecture}); give objects that were learnt on one"
        )
    one, two = differences(a, base_state), differences(b, base_state)
    if wrong := [name for name in one.keys() & two.keys() if one[name].shape != two[name].shape]:
        raise ValueError(f"these objects' {sorted(wrong)[0]} have two shapes; one of the files is damaged")
    weights = {
        name: torch.lerp(one.get(name, torch.zeros(())), two.get(name, torch.zeros(())), share).half()
        for name in dict.fromkeys([*one, *two])
    }
    nearer = a if share < 0.5 else b
    about = joint_about([a.about, b.about], parents, {"interpolated": {"share": share}})
    about = replace(about, few_shot=nearer.about.few_shot, few_shot_count=nearer.about.few_shot_count)
    return Delta(about, weights, tokens=_tokens(a, b, share), reference=nearer.reference, views=nearer.views)


def joint_about(
    abouts: Sequence[About], parents: Sequence[Mapping[str, str]], recipe: Mapping[str, object]
) -> About:
    """What a file made of several objects says about itself: now, all their authors and licences."""
    first = abouts[0]
    modes = {about.freeze_model for about in abouts}
    return About(
        base=first.base,
        architecture=first.architecture,
        freeze_model=first.freeze_model if len(modes) == 1 else "crossattn",
        recipe=dict(recipe),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        author="; ".join(dict.fromkeys(about.author for about in abouts if about.author)),
        licence="; ".join(dict.fromkeys(about.licence for about in abouts if about.licence)),
        parents=list(parents),
    )


def _tokens(a: Delta, b: Delta, share: float) -> Tensor | None:
    counts = [0 if each.tokens is None else len(each.tokens) for each in (a, b)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"these objects have {counts[0]} and {counts[1]} few-shot tokens; only objects of equally "
            "many pictures can be interpolated"
        )
    return None if a.tokens is None or b.tokens is None else torch.lerp(a.tokens, b.tokens, share)
