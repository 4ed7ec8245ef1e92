"""Measures, by `<protocol>/<name>`: their table, and how those of an insertion, or of a set, are computed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ldm.batch.contact_sheet import rgb8
from ldm.data.picture import Picture, read_picture
from ldm.evaluation.benchmark import SiteImages
from ldm.evaluation.networks import FeatureNetworks, centre, object_view, paper_region, pbe_region, quality
from ldm.evaluation.results import DIGITS, Insertion
from ldm.features.encoders import Lpips, features_of
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.blend import seam_ratio
from ldm.insertion.crop_paste import crop_region, difference_outside, mean_difference_outside
from ldm.insertion.roi import Roi, box_of, covered, crop

GMM = "close to, by our own GMM"  # Paint-by-Example's is not public


@dataclass(frozen=True)
class Measure:
    """`metric` is what a user asks for; `better`: 1 if more is better, -1 if less is, 0: neither."""

    metric: str
    title: str
    decimals: int = 3
    better: int = 1


MEASURES = {  # <protocol>/<name>, in the order of columns; numbers compare only inside one protocol
    "v2/identity": Measure("identity", "identity, to the truth"),
    "v2/identity_mean": Measure("identity", "identity, mean of views"),
    "v2/identity_max": Measure("identity", "identity, best view"),
    "v2/clip_mean": Measure("clip", "region CLIP, mean of views"),
    "v2/clip_max": Measure("clip", "region CLIP, best view"),
    "v2/dino_mean": Measure("dino", "region DINOv2, mean of views"),
    "v2/dino_max": Measure("dino", "region DINOv2, best view"),
    "paper/clip": Measure("clip", "region CLIP, x 100", 2),
    "paper/dino": Measure("dino", "region DINOv2, x 100", 2),
    "pbe/clip": Measure("clip", "region CLIP, x 100", 2),
    "pbe/quality": Measure("quality", f"quality score ({GMM})", 2),
    "v2/psnr_object": Measure("fidelity", "PSNR object, dB", 2),
    "v2/psnr_region": Measure("fidelity", "PSNR region, dB", 2),
    "v2/psnr_around": Measure("fidelity", "PSNR around the object in the mask, dB", 2),
    "v2/ssim_object": Measure("fidelity", "SSIM object"),
    "v2/ssim_region": Measure("fidelity", "SSIM region"),
    "v2/perceptual_object": Measure("fidelity", "LPIPS-like object", 4, -1),
    "v2/perceptual_region": Measure("fidelity", "LPIPS-like region", 4, -1),
    "v2/lpips_object": Measure("lpips", "LPIPS object", 3, -1),
    "v2/lpips_region": Measure("lpips", "LPIPS region", 3, -1),
    "v2/seam": Measure("background", "seam ratio", 2, -1),
    "v2/colour_offset": Measure("background", "colour offset around the mask, levels", 2, -1),
    "v2/outside": Measure("background", "changed outside, most", 0, -1),
    "v2/outside_mean": Measure("background", "changed outside, mean", 3, -1),
    "v2/seconds": Measure("background", "seconds", 2, 0),
    "v2/learning_seconds": Measure("background", "learning, s", 0, 0),
    "paper/clip_fid": Measure("clip-fid", "CLIP-FID", 2, -1),
    "v2/inception_fid": Measure("inception-fid", "Inception FID", 2, -1),
}
METRICS = tuple(dict.fromkeys(measure.metric for measure in MEASURES.values()))
OFFLINE = ("identity", "fidelity", "background")  # need no weights that are not installed


def heading(name: str) -> str:
    """Of a column: protocol (`paper`, `pbe` or `v2`) and title."""
    return f"{name.partition('/')[0]}: {MEASURES[name].title}"


def in_order(names: Collection[str]) -> list[str]:
    """Those of MEASURES that are among `names`, in the order of columns."""
    return [name for name in MEASURES if name in names]


MIN_MSE = 1e-10  # in [0,1]: equal regions have 100 dB, not infinity, so that means stay finite
SSIM_REACH = 5  # pixels that a window reaches to each side
RESAMPLES = 10_000


def psnr(image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Peak signal-to-noise ratio of the region's pixels in dB, at most 100."""
    inside = torch.from_numpy(region)
    mse = ((image - truth)[:, inside] / 2).double().square().mean()
    return float(-10 * torch.log10(mse.clamp(min=MIN_MSE)))


def ssim(image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Mean over the region of the SSIM map (Wang et al. 2004: Gaussian of 1.5 px, 11 x 11; mean of RGB)."""
    box = box_of(region)
    rows = slice(max(box.y0 - SSIM_REACH, 0), box.y1 + SSIM_REACH)
    columns = slice(max(box.x0 - SSIM_REACH, 0), box.x1 + SSIM_REACH)
    a, b = ((x[None, :, rows, columns] + 1) / 2 for x in (image, truth))
    _, similarity = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    return float(similarity[0][:, torch.from_numpy(region[rows, columns])].mean())


def perceptual(features: ImageNetFeatures, image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """LPIPS-like, of EfficientNet-Lite0: mean over the region of the squared distance of unit features.

    Mean of three stages; a stage's position counts by the share of it that lies in the region.
    """
    with torch.no_grad():
        stages = [features.maps(x[None].to(features.mean.device)) for x in (image, truth)]
    inside = torch.from_numpy(region)[None, None].to(stages[0][0])
    found = []
    for a, b in zip(*stages, strict=True):
        share = F.interpolate(inside, a.shape[2:], mode="area")[0, 0]
        found.append(((a - b).square().sum(1)[0] * share).sum() / share.sum())
    return float(torch.stack(found).mean())


def lpips(net: Lpips, image: Tensor, truth: Tensor, region: np.ndarray) -> float:
    """Mean over the region of LPIPS' map; 0 is the same."""
    device = next(net.parameters()).device
    return float(net(image[None].to(device), truth[None].to(device)).cpu()[torch.from_numpy(region)].mean())


def frechet_distance(results: Tensor, real: Tensor) -> float:
    """|m - n|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features [n,d], [m,d] (Heusel et al. 2017).

    m, n are means and A, B covariances; ValueError for less than two features.
    """
    if min(len(results), len(real)) < 2:
        raise ValueError(
            f"a Frechet distance of {len(results)} results to {len(real)} real pictures; give two or more"
        )
    (m, a), (n, b) = ((x.double().mean(0), x.double().T.cov()) for x in (results, real))
    root = torch.linalg.eigvals(a @ b).sqrt().real.sum()  # the trace of (A B)^(1/2)
    return float((m - n).square().sum() + a.trace() + b.trace() - 2 * root)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean of `values` (at least one)."""
    data = np.asarray(values, float)
    assert data.ndim == 1 and len(data), f"no values to resample: {values}"
    draws = np.random.default_rng(0).integers(len(data), size=(RESAMPLES, len(data)))
    low, high = np.quantile(data[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


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

    views = like(name, object_view(encoder, crop_region(result, box_of(images.mask))))
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


def clip_features(networks: FeatureNetworks, paths: Iterable[Path]) -> Tensor:
    """CLIP's embeddings of whole pictures [n,d], through its own preprocessing."""
    assert networks.clip is not None, "load_networks loads it"
    return torch.cat([networks.clip(centre(rgb8(read_picture(path)))) for path in paths])


def inception_features(networks: FeatureNetworks, paths: Iterable[Path]) -> Tensor:
    """Inception's pooled features of whole pictures [n,2048]; it resizes them itself."""
    assert networks.inception is not None, "load_networks loads it"
    pictures = (rearrange(torch.from_numpy(rgb8(read_picture(path))), "H W c -> 1 c H W") for path in paths)
    return torch.cat([features_of(networks.inception, pixels) for pixels in pictures])
