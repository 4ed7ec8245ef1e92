"""The scores of one insertion, and of all together, by `<protocol>/<name>` of MEASURES."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from ldm.batch.contact_sheet import rgb8
from ldm.data.files import pictures_in
from ldm.data.picture import Picture, read_picture
from ldm.evaluation.benchmark import SiteImages
from ldm.evaluation.metrics import (
    DIGITS,
    MEASURES,
    frechet_distance,
    lpips,
    perceptual,
    psnr,
    ssim,
)
from ldm.evaluation.networks import FeatureNetworks, centre, object_region, paper_region, pbe_region, quality
from ldm.evaluation.results import Insertion
from ldm.features.encoders import features_of
from ldm.insertion.blend import seam_ratio
from ldm.insertion.crop_paste import crop_region, difference_outside, mean_difference_outside
from ldm.insertion.roi import Roi, box_of, covered, crop

MARGIN = 64  # pixels; LPIPS needs that many a side


def scores_of(insertion: Insertion, metrics: Collection[str], networks: FeatureNetworks) -> dict[str, float]:
    """Every measure that these metrics ask for and that the files of one result can tell."""
    result, images = insertion.read()
    scores: dict[str, float] = {}
    if "identity" in metrics:
        scores |= _identity(insertion, result, images, networks)
    for name in ("clip", "dino"):
        if name in metrics:
            scores |= _likeness(name, insertion, result, images, networks)
    if "quality" in metrics:
        assert networks.clip is not None and networks.mixture is not None, "load_networks loads them"
        scores["pbe/quality"] = quality(networks.mixture, networks.clip(centre(rgb8(result))))[0]
    if images.truth is not None:
        scores |= _fidelity(result, images.truth, images, metrics, networks)
    if "background" in metrics:
        scores |= _background(result, images)
        scores |= {f"v2/{key}": value for key, value in insertion.facts.items()}
    return scores


def _identity(
    insertion: Insertion, result: Picture, images: SiteImages, networks: FeatureNetworks
) -> dict[str, float]:
    """By ImageNet features: the mask's box against every view, the object's own box against the truth."""
    feature = networks.pooled(crop_region(result, box_of(images.mask)))
    found = networks.likeness("imagenet", insertion.references, feature)
    scores = {"v2/identity_mean": float(found.mean()), "v2/identity_max": float(found.max())}
    if images.truth is not None:
        box = box_of(images.mask if images.object_mask is None else images.object_mask)
        a, b = (networks.pooled(crop_region(picture, box)) for picture in (result, images.truth))
        scores["v2/identity"] = float(torch.cosine_similarity(a, b))
    return scores


def _likeness(
    name: str, insertion: Insertion, result: Picture, images: SiteImages, networks: FeatureNetworks
) -> dict[str, float]:
    """Region CLIP or DINOv2 in every protocol that has it."""
    encoder = getattr(networks, name)

    def like(kind: str, shown: Tensor) -> Tensor:
        return networks.likeness(kind, insertion.references, encoder(shown))

    views = like(name, object_region(encoder, result, images.mask))
    scores = {f"v2/{name}_mean": float(views.mean()), f"v2/{name}_max": float(views.max())}
    published = {"paper": paper_region(result, images.mask)}
    if name == "clip":
        published["pbe"] = pbe_region(result, images.mask)
    for protocol, shown in published.items():
        if shown is not None:  # the published code fails on such a mask
            scores[f"{protocol}/{name}"] = 100 * float(like(f"{name}_whole", shown))
    return scores


def _fidelity(
    result: Picture, truth: Picture, images: SiteImages, metrics: Collection[str], networks: FeatureNetworks
) -> dict[str, float]:
    """Against the truth, inside the object's silhouette and inside the mask."""
    roi = _around(images)
    image, true = crop_region(result, roi), crop_region(truth, roi)
    scores = {}
    if "fidelity" in metrics and images.object_mask is not None:
        around = crop(images.mask & ~images.object_mask, roi)
        if around.any():
            scores["v2/psnr_around"] = psnr(image, true, around)
    for name, mask in (("object", images.object_mask), ("region", images.mask)):
        if mask is None:
            continue
        where = crop(mask, roi)
        if "fidelity" in metrics:
            assert networks.imagenet is not None, "load_networks loads it"
            scores[f"v2/psnr_{name}"] = psnr(image, true, where)
            scores[f"v2/ssim_{name}"] = ssim(image, true, where)
            scores[f"v2/perceptual_{name}"] = perceptual(networks.imagenet, image, true, where)
        if "lpips" in metrics:
            assert networks.lpips is not None, "load_networks loads it"
            scores[f"v2/lpips_{name}"] = lpips(networks.lpips, image, true, where)
    return scores


def _around(images: SiteImages) -> Roi:
    """The square that was inpainted; if there are several, or it is small, a box with a margin."""
    roi = images.rois[0]
    if covered(images.mask, roi) and min(roi.size) >= MARGIN:
        return roi
    box = box_of(images.mask)
    return Roi(box.x0 - MARGIN, box.y0 - MARGIN, box.x1 + MARGIN, box.y1 + MARGIN)


def _background(result: Picture, images: SiteImages) -> dict[str, float]:
    """Changes outside the mask, and the seam ratio of the worst region."""
    before, mask = images.background.pixels, images.mask
    seams = [seam_ratio(crop_region(result, roi), crop(mask, roi)) for roi in images.rois]
    return {
        "v2/seam": max(seams),
        "v2/outside": float(difference_outside(result.pixels, before, mask)),
        "v2/outside_mean": mean_difference_outside(result.pixels, before, mask),
    }


def set_scores(
    insertions: Sequence[Insertion], real: Sequence[Path], metrics: Collection[str], networks: FeatureNetworks
) -> dict[str, float]:
    """Frechet distances of all results to real pictures; {} if no metric asks for one."""
    ways = {"paper/clip_fid": clip_features, "v2/inception_fid": inception_features}
    scores, results = {}, [insertion.result for insertion in insertions]
    for name, features in ways.items():
        if MEASURES[name].metric in metrics:
            distance = frechet_distance(features(networks, results), features(networks, real))
            scores[name] = round(distance, DIGITS)
    return scores


def real_pictures(insertions: Sequence[Insertion], folder: Path | None) -> tuple[list[Path], str]:
    """What results are held against as a set, and in words: a folder's, the truths, or the backgrounds."""
    if folder is not None:
        return pictures_in(folder), f"pictures of {folder}"
    truths = [insertion.site.truth for insertion in insertions if insertion.site.truth is not None]
    if len(truths) == len(insertions):
        return sorted(set(truths)), "truths"
    return sorted({insertion.site.masked.background for insertion in insertions}), "backgrounds"


def clip_features(networks: FeatureNetworks, paths: Iterable[Path]) -> Tensor:
    """CLIP's embeddings of whole pictures [n,d], through its own preprocessing."""
    assert networks.clip is not None, "load_networks loads it"
    return torch.cat([networks.clip(centre(rgb8(read_picture(path)))) for path in paths])


def inception_features(networks: FeatureNetworks, paths: Iterable[Path]) -> Tensor:
    """Inception's pooled features of whole pictures [n,2048]; it resizes them itself."""
    assert networks.inception is not None, "load_networks loads it"
    pictures = (rearrange(torch.from_numpy(rgb8(read_picture(path))), "H W c -> 1 c H W") for path in paths)
    return torch.cat([features_of(networks.inception, pixels) for pixels in pictures])
