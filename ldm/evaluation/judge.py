"""Judge one insertion: its numbers, by `<protocol>/<name>` of `MEASURES`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ldm.data.picture import Picture
from ldm.evaluation.crops import centre, object_region, paper_region, pbe_region
from ldm.evaluation.insertion import Insertion, Seen
from ldm.evaluation.judges import Judges
from ldm.evaluation.metrics import detail, lpips, perceptual, psnr, ssim
from ldm.evaluation.quality import quality
from ldm.insertion.contact_sheet import rgb8
from ldm.insertion.paste import cut_region
from ldm.insertion.result_checks import difference_outside, mean_difference_outside, seam_ratio
from ldm.insertion.roi import Roi, box_of, covered, crop

MARGIN = 64  # pixels; LPIPS needs that many a side


def scores_of(insertion: Insertion, seen: Seen, metrics: Collection[str], judges: Judges) -> dict[str, float]:
    """Every measure of one result that the metrics ask for and its files can tell."""
    scores: dict[str, float] = {}
    if "identity" in metrics:
        scores |= _identity(insertion, seen, judges)
    for name in ("clip", "dino"):
        if name in metrics:
            scores |= _likeness(name, insertion, seen, judges)
    if "quality" in metrics:
        assert judges.clip is not None and judges.mixture is not None, "load_judges loads them"
        scores["pbe/quality"] = quality(judges.mixture, judges.clip(centre(rgb8(seen.result))))[0]
    if seen.truth is not None:
        scores |= _fidelity(seen, seen.truth, metrics, judges)
    if "background" in metrics:
        scores |= _background(seen) | {f"v2/{key}": value for key, value in insertion.facts.items()}
    return scores


def _identity(insertion: Insertion, seen: Seen, judges: Judges) -> dict[str, float]:
    """By ImageNet features: the mask's box against every view; the true silhouette's against the truth."""
    found = judges.likeness(
        "imagenet", insertion.references, judges.pooled(cut_region(seen.result, box_of(seen.mask)))
    )
    scores = {"v2/identity_mean": float(found.mean()), "v2/identity_max": float(found.max())}
    if seen.truth is not None:
        box = box_of(seen.mask if seen.object_mask is None else seen.object_mask)
        a, b = (judges.pooled(cut_region(picture, box)) for picture in (seen.result, seen.truth))
        scores["v2/identity"] = float(torch.cosine_similarity(a, b))
    return scores


def _likeness(name: str, insertion: Insertion, seen: Seen, judges: Judges) -> dict[str, float]:
    """Region CLIP or DINOv2 in every protocol that has it."""
    encoder = getattr(judges, name)

    def like(kind: str, shown: Tensor) -> Tensor:
        return judges.likeness(kind, insertion.references, encoder(shown))

    views = like(name, object_region(encoder, seen.result, seen.mask))
    scores = {f"v2/{name}_mean": float(views.mean()), f"v2/{name}_max": float(views.max())}
    published = {"paper": paper_region(seen.result, seen.mask)}
    if name == "clip":
        published["pbe"] = pbe_region(seen.result, seen.mask)
    for protocol, shown in published.items():
        if shown is not None:  # the published code fails on such a mask
            scores[f"{protocol}/{name}"] = 100 * float(like(f"{name}_whole", shown))
    return scores


def _fidelity(seen: Seen, truth: Picture, metrics: Collection[str], judges: Judges) -> dict[str, float]:
    """Against the truth, inside the object's silhouette and inside the mask."""
    roi = _around(seen)
    image, true = cut_region(seen.result, roi), cut_region(truth, roi)
    scores = {}
    for name, mask in (("object", seen.object_mask), ("region", seen.mask)):
        if mask is None:
            continue
        where = crop(mask, roi)
        if "fidelity" in metrics:
            assert judges.imagenet is not None, "load_judges loads it"
            scores[f"v2/psnr_{name}"] = psnr(image, true, where)
            scores[f"v2/ssim_{name}"] = ssim(image, true, where)
            scores[f"v2/detail_{name}"] = detail(image, true, where)
            scores[f"v2/perceptual_{name}"] = perceptual(judges.imagenet, image, true, where)
        if "lpips" in metrics:
            assert judges.lpips is not None, "load_judges loads it"
            scores[f"v2/lpips_{name}"] = lpips(judges.lpips, image, true, where)
    return scores


def _around(seen: Seen) -> Roi:
    """The square that was inpainted; if there are several, or it is small, a box with a margin."""
    roi = seen.rois[0]
    if covered(seen.mask, roi) and min(roi.size) >= MARGIN:
        return roi
    box = box_of(seen.mask)
    return Roi(box.x0 - MARGIN, box.y0 - MARGIN, box.x1 + MARGIN, box.y1 + MARGIN)


def _background(seen: Seen) -> dict[str, float]:
    """What a result must not show: changes outside the mask, and a seam (the worst of its regions)."""
    result, ground, mask = seen.result.pixels, seen.background.pixels, seen.mask
    seams = [seam_ratio(cut_region(seen.result, roi), crop(mask, roi)) for roi in seen.rois]
    return {
        "v2/seam": max(seams),
        "v2/outside": float(difference_outside(result, ground, mask)),
        "v2/outside_mean": mean_difference_outside(result, ground, mask),
    }
