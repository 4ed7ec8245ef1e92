"""Numbers of many pictures together: how far results are from real ones, and what a mixture is fitted on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from ldm.data.image import SUFFIXES
from ldm.data.insertset import natural_key
from ldm.data.picture import read_picture
from ldm.evaluation.crops import centre
from ldm.evaluation.frechet import frechet_distance
from ldm.evaluation.insertion import Insertion
from ldm.evaluation.judges import Judges
from ldm.evaluation.measures import DIGITS, MEASURES
from ldm.insertion.sheet import rgb8
from ldm.models.inception import features_of


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
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f"{folder}: holds no picture; expected {', '.join(SUFFIXES)}")
    return sorted(found, key=lambda path: natural_key(path.name))


def clip_features(judges: Judges, paths: Iterable[Path]) -> Tensor:
    """CLIP's embeddings of whole pictures [n,d], through its own preprocessing."""
    assert judges.clip is not None, "load_judges loads it"
    return torch.cat([judges.clip(centre(rgb8(read_picture(path)))) for path in paths])


def inception_features(judges: Judges, paths: Iterable[Path]) -> Tensor:
    """Inception's pooled features of whole pictures [n,2048]; it resizes them itself."""
    assert judges.inception is not None, "load_judges loads it"
    pictures = (rearrange(torch.from_numpy(rgb8(read_picture(path))), "H W c -> 1 c H W") for path in paths)
    return torch.cat([features_of(judges.inception, pixels) for pixels in pictures])
