"""The networks that metrics need, loaded once and before any work, and the features of references."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.evaluation.crops import object_view, whole
from ldm.evaluation.quality import Mixture, load_mixture
from ldm.evaluation.results import References
from ldm.features.encoders import Encoder, Lpips, load_clip, load_dino, load_inception, load_lpips
from ldm.features.imagenet import ImageNetFeatures, identity_crop

IMAGENET = "EfficientNet-Lite0 (ImageNet)"


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
    loaders: dict[str, tuple[set[str], Callable[[], Any]]] = {  # network => metrics that need it
        "imagenet": ({"identity", "fidelity"}, ImageNetFeatures),
        "clip": ({"clip", "quality", "clip-fid"}, lambda: load_clip(weights.clip, device)),
        "dino": ({"dino"}, lambda: load_dino(weights.dino, device)),
        "lpips": ({"lpips"}, lambda: load_lpips(weights.alexnet)),
        "inception": ({"inception-fid"}, lambda: load_inception(weights.inception)),
    }
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for network, (users, load) in loaders.items():
        if not users & set(metrics):
            continue
        loaded = load()
        if isinstance(loaded, Encoder):
            found[network], names[network] = loaded, loaded.name
        else:
            net, names[network] = loaded if isinstance(loaded, tuple) else (loaded, IMAGENET)
            found[network] = net.to(device)
    if "quality" in metrics:
        if weights.mixture is None:
            raise FileNotFoundError(
                "quality score: no mixture; fit one by `evaluate.py --fit_quality PICTURES --out "
                "gmm.safetensors` and give it: --quality_model FILE"
            )
        mixture = found["mixture"] = load_mixture(weights.mixture, names["clip"])
        digest, source = mixture.about["digest"], mixture.about["source"]
        names["mixture"] = f"{weights.mixture.name} {digest}, own, on {source}"
    return FeatureNetworks(**found, names=names)
