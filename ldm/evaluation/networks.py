"""The networks that metrics need, loaded once and before any work, and the features of references."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.evaluation.crops import object_view, whole
from ldm.evaluation.quality import Mixture, load_mixture
from ldm.evaluation.results import References
from ldm.features.encoders import Encoder, load_clip, load_dino, load_inception
from ldm.features.imagenet import ImageNetFeatures, identity_crop
from ldm.features.lpips import Lpips, load_lpips


@dataclass(frozen=True)
class Weights:
    """Where the networks' weights are, if not in the cache of the library that loads them."""

    clip: Path | None = None
    dino: Path | None = None
    inception: Path | None = None
    alexnet: Path | None = None
    mixture: Path | None = None


@dataclass(frozen=True, eq=False)
class FeatureNetworks:
    """What is loaded; `names` says what each network is, with the fingerprint of its weights."""

    imagenet: ImageNetFeatures | None = None
    clip: Encoder | None = None
    dino: Encoder | None = None
    lpips: Lpips | None = None
    inception: nn.Module | None = None
    mixture: Mixture | None = None
    names: dict[str, str] = field(default_factory=dict)
    _cache: dict[tuple[str, References], Tensor] = field(default_factory=dict)

    def likeness(self, kind: str, references: References, feature: Tensor) -> Tensor:
        """Cosine of a result's feature [1,d] to each of the references' of a kind, [n]."""
        return F.cosine_similarity(feature, self._references(kind, references))

    def _references(self, kind: str, references: References) -> Tensor:
        """Features [n,d] of the references, computed once: `imagenet`, `<encoder>`, `<encoder>_whole`."""
        if (kind, references) not in self._cache:
            self._cache[kind, references] = self._compute(kind, references)
        return self._cache[kind, references]

    def _compute(self, kind: str, references: References) -> Tensor:
        if kind == "imagenet":
            return torch.cat([self.pooled(image) for image in references.images()])
        encoder = self.dino if kind.startswith("dino") else self.clip
        assert encoder is not None, f"{kind} is not loaded"
        if kind.endswith("_whole"):
            return encoder(whole(references.picture()))
        return torch.cat([encoder(object_view(encoder, image)) for image in references.images()])

    @torch.no_grad()
    def pooled(self, image: Tensor) -> Tensor:
        """The ImageNet feature [1,d] of an image [3,h,w] in [-1,1], on the CPU."""
        assert self.imagenet is not None, "imagenet is not loaded"
        return self.imagenet.pooled(identity_crop(image)[None].to(self.imagenet.mean.device)).cpu()


def load_networks(metrics: Collection[str], weights: Weights, device: str = "cpu") -> FeatureNetworks:
    """Load what the metrics need; FileNotFoundError names model, file and flag of what is missing."""
    wants = {
        "imagenet": {"identity", "fidelity"},
        "clip": {"clip", "quality", "clip-fid"},
        "dino": {"dino"},
        "lpips": {"lpips"},
        "inception": {"inception-fid"},
    }
    found, names = {}, {}
    for network, users in wants.items():
        if users & set(metrics):
            found[network], names[network] = _LOADERS[network](weights, device)
    mixture = None
    if "quality" in metrics:
        if weights.mixture is None:
            raise FileNotFoundError(
                "quality score: no mixture; fit one by `evaluate.py --fit_quality PICTURES --out "
                "gmm.safetensors` and give it: --quality_model FILE"
            )
        mixture = load_mixture(weights.mixture, names["clip"])
        names["mixture"] = (
            f"{weights.mixture.name} {mixture.about['digest']}, own, on {mixture.about['source']}"
        )
    return FeatureNetworks(**found, mixture=mixture, names=names)  # type: ignore[arg-type]


def _imagenet(weights: Weights, device: str) -> tuple[ImageNetFeatures, str]:
    return ImageNetFeatures().to(device), "EfficientNet-Lite0 (ImageNet)"


def _encoder(
    load: Callable[[Path | None, str], Encoder], path: Path | None, device: str
) -> tuple[Encoder, str]:
    encoder = load(path, device)
    return encoder, encoder.name


def _on(loaded: tuple[nn.Module, str], device: str) -> tuple[nn.Module, str]:
    return loaded[0].to(device), loaded[1]


_LOADERS: dict[str, Callable[[Weights, str], tuple[object, str]]] = {
    "imagenet": _imagenet,
    "clip": lambda weights, device: _encoder(load_clip, weights.clip, device),
    "dino": lambda weights, device: _encoder(load_dino, weights.dino, device),
    "lpips": lambda weights, device: _on(load_lpips(weights.alexnet), device),
    "inception": lambda weights, device: _on(load_inception(weights.inception), device),
}
