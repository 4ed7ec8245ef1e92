"""What contexts a base is used with, as pictures show it: the weight of a merge's change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldm.data.image import SUFFIXES
from ldm.data.shown import ObjectImages
from ldm.models.base import Base

RIDGE = 1e-2  # of the mean variance, added to a second moment: what few contexts do not show still counts


@torch.no_grad()
def contexts_of(
    base: Base,
    paths: Sequence[Path],
    images: ObjectImages,
    progress: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Tensor:
    """Pictures, or folders of them => tokens [n,d] that the base makes of them, and its unconditional one.

    Raises FileNotFoundError or ValueError in one line. `progress` wraps the list of pictures.
    """
    rows = [base.context(images.reference(file))[0] for file in progress(_pictures(paths))]
    return torch.cat([*rows, base.conditioner.learnable_vector[0]])


def second_moment(contexts: Tensor) -> Tensor:
    """Context tokens [n,d] that the base is used with => second moment [d,d], made positive definite."""
    tokens = contexts.double()
    moment = tokens.T @ tokens / len(tokens)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)


def _pictures(paths: Sequence[Path]) -> list[Path]:
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]}: no such picture or folder")
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    pictures = [file for file in files if file in paths or file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise ValueError(
            f"{paths[0]} holds no pictures ({', '.join(SUFFIXES)}); give pictures, or folders of them"
        )
    return pictures
