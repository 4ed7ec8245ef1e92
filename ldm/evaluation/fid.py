"""The Frechet distance of two sets of features: FID with Inception's, CLIP-FID with CLIP's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ldm.data.files import PICTURE_SUFFIXES, list_files
from ldm.data.picture import read_picture
from ldm.evaluation.crops import centre
from ldm.evaluation.insertion import Insertion
from ldm.evaluation.judges import Judges
from ldm.evaluation.metrics import DIGITS, MEASURES
from ldm.features.encoders import features_of
from ldm.insertion.contact_sheet import rgb8


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(results: Tensor, real: Tensor) -> float:
    """Distance of the Gaussians of two sets of features [n,d], [m,d]; ValueError for less than two."""
    if min(len(results), len(real)) < 2:
        raise ValueError(
            f"a Frechet distance of {len(results)} results to {len(real)} real pictures; give two or more"
        )
    metric = FrechetInceptionDistance(feature=_Given(results.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(results.double(), real=False)
    metric.update(real.double(), real=True)
    return float(metric.compute())


def set_scores(
    insertions: Sequence[Insertion], real: Sequence[Path], metrics: Collection[str], judges: Judges
) -> dict[str, float]:
    """Frechet distances of all results to real pictures; {} if no metric asks for one."""
    ways = {"paper/clip_fid": clip_features, "v2/inception_fid": inception_features}
    scores, results = {}, [insertion.result for insertion in insertions]
    for name, features in ways.items():
        if MEASURES[name].metric in metrics:
            distance = frechet_distance(features(judges, results), features(judges, real))
            scores[name] = round(distance, DIGITS)
    return scores


def real_pictures(insertions: Sequence[Insertion], folder: Path | None) -> tuple[list[Path], str]:
    """What results are held against as a set, and in words: a folder's, the truths, or the backgrounds."""
    if folder is not None:
        return pictures_in(folder), f"pictures of {folder}"
    truths = [insertion.truth for insertion in insertions if insertion.truth is not None]
    if len(truths) == len(insertions):
        return sorted(set(truths)), "truths"
    return sorted({insertion.case.background for insertion in insertions}), "backgrounds"


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; one-line errors if there is none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    found = list_files(folder)
    if not found:
        raise ValueError(f"{folder}: holds no picture; expected {', '.join(PICTURE_SUFFIXES)}")
    return found


def clip_features(judges: Judges, paths: Iterable[Path]) -> Tensor:
    """CLIP's embeddings of whole pictures [n,d], through its own preprocessing."""
    assert judges.clip is not None, "load_judges loads it"
    return torch.cat([judges.clip(centre(rgb8(read_picture(path)))) for path in paths])


def inception_features(judges: Judges, paths: Iterable[Path]) -> Tensor:
    """Inception's pooled features of whole pictures [n,2048]; it resizes them itself."""
    assert judges.inception is not None, "load_judges loads it"
    pictures = (rearrange(torch.from_numpy(rgb8(read_picture(path))), "H W c -> 1 c H W") for path in paths)
    return torch.cat([features_of(judges.inception, pixels) for pixels in pictures])
