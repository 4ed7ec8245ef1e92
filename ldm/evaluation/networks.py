"""The networks that metrics need, loaded once and before any work, and what of a picture each of them sees.

The crops are [1,3,224,224], normalised for the encoder, by protocol: `paper`, `pbe` (Paint-by-Example), `v2`
(ours). `paper` and `pbe` repeat the published code, faults included: docs/evaluation_protocols.md lists them.

The quality score's network is a mixture of Gaussians over CLIP features. Paint-by-Example's own file is not
public, so a score by ours is named "close to" and compares only with scores by the same file.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ldm.data.files import file_digest
from ldm.data.image import to_image
from ldm.data.picture import Picture
from ldm.evaluation.results import References
from ldm.features.encoders import Encoder, Lpips, load_clip, load_dino, load_inception, load_lpips
from ldm.features.imagenet import SIZE, ImageNetFeatures, centred, on_square
from ldm.insertion.crop_paste import crop_region
from ldm.insertion.roi import Roi, crop
from ldm.models.checkpoint import check_replaceable, read_metadata, read_state, write_safetensors
from ldm.models.conditioner import clip_normalised

CANNY = (128, 256)  # thresholds of the paper's code


def paper_region(picture: Picture, mask: np.ndarray) -> Tensor | None:
    """CLIP-normalised, 0 outside the mask, `paper_box`, zero-padded square, bilinear without antialiasing.

    CLIP's statistics also go to DINOv2. None: the published code finds no box in this mask.
    """
    box = paper_box(mask)
    if box is None:
        return None
    seen = clip_normalised(crop_region(picture, box)[None]) * torch.from_numpy(crop(mask, box)).float()
    return _squashed(centred(seen[0], torch.zeros(3))[None])


def paper_box(mask: np.ndarray) -> Roi | None:
    """The box of the last outer contour of the mask's Canny edges; None without an edge.

    Of several contours it holds one. An edge lies one pixel outside the mask above and to the left of it, and
    none lies on the picture's border, so that a band from border to border has two edges, each a box.
    """
    edges = cv2.Canny(mask.astype(np.uint8) * np.uint8(255), *CANNY)
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    x, y, width, height = cv2.boundingRect(contours[-1])
    return Roi(x, y, x + width, y + height)


def pbe_region(picture: Picture, mask: np.ndarray) -> Tensor | None:
    """CLIP-normalised, `pbe_box`, squashed, bilinear without antialiasing; None if the box is empty."""
    box = pbe_box(mask)
    return None if box is None else _squashed(clip_normalised(crop_region(picture, box)[None]))


def pbe_box(mask: np.ndarray) -> Roi | None:
    """From the first to the last masked pixel in raster order, the last row and column left out.

    None if nothing is left: the last pixel is not below and to the right of the first.
    """
    raveled = np.flatnonzero(mask)
    (y0, x0), (y1, x1) = (divmod(int(i), mask.shape[1]) for i in (raveled[0], raveled[-1]))
    return Roi(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def whole(pixels: np.ndarray) -> Tensor:
    """The reference of `paper` and `pbe`, uint8 [H,W,3]: squashed by Pillow's bicubic, CLIP-normalised."""
    return clip_normalised(to_image(np.array(Image.fromarray(pixels).resize((SIZE, SIZE))))[None])


def centre(pixels: np.ndarray) -> Tensor:
    """CLIP's own preprocessing, uint8 [H,W,3]: short side to 224 px, bicubic, centre square, normalised.

    Sizes are cut and margins rounded (half to even) as torchvision does.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = int(SIZE * width / short), int(SIZE * height / short)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in size)
    return clip_normalised(to_image(np.array(small.crop((left, top, left + SIZE, top + SIZE))))[None])


def object_view(encoder: Encoder, image: Tensor) -> Tensor:
    """`v2`: image [3,h,w] in [-1,1] on a square of the encoder's mean colour; a box of mask or object."""
    return encoder.normalised(on_square(image, encoder.mean)[None])


def _squashed(image: Tensor) -> Tensor:
    return F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=False)


IMAGENET = "EfficientNet-Lite0 (ImageNet)"


FORMAT = "implicit-insertion quality mixture"
COMPONENTS = 20  # Paint-by-Example's
FULL_SCORE = 300  # log-likelihood that counts as 100, Paint-by-Example's


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares [k], means [k,d], covariances [k,d,d] in float64; `metadata` of the fit."""

    shares: Tensor
    means: Tensor
    covariances: Tensor
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def density(self) -> MixtureSameFamily:
        """The mixture as a distribution of torch."""
        return MixtureSameFamily(Categorical(self.shares), MultivariateNormal(self.means, self.covariances))


def quality(mixture: Mixture, features: Tensor) -> list[float]:
    """Quality score of CLIP features [n,d], 0 ... 100: log-likelihood / 300, clipped."""
    found = mixture.density.log_prob(features.double())
    return ((found / FULL_SCORE).clamp(0, 1) * 100).tolist()


def estimator(pictures: int, components: int = COMPONENTS) -> GaussianMixture:
    """scikit-learn's expectation-maximisation (extra `quality`); its errors come before the encoding."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ModuleNotFoundError(
            "fitting a mixture needs scikit-learn; run `pip install '.[quality]'`"
        ) from error
    if not 0 < 2 * components <= pictures:
        raise ValueError(f"{pictures} pictures for {components} components; give 2 a component or more")
    return GaussianMixture(components, random_state=0)


def fit_mixture(estimator: GaussianMixture, features: Tensor) -> Mixture:
    """Fit to features [n,d]."""
    estimator.fit(features.double().numpy())
    found = (estimator.weights_, estimator.means_, estimator.covariances_)
    return Mixture(*map(torch.from_numpy, found))


def save_mixture(path: Path, mixture: Mixture) -> None:
    """Write a .safetensors file; its metadata name format, encoder and the pictures of the fit."""
    tensors = {name: getattr(mixture, name) for name in ("shares", "means", "covariances")}
    check_replaceable(path)
    write_safetensors(path, tensors, {"format": FORMAT, "metadata": json.dumps(dict(mixture.metadata))})


def load_mixture(path: Path | None, encoder: str) -> Mixture:
    """Read a mixture that was fitted on features of this very encoder; ValueError if it was not."""
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"quality score: no mixture {path or 'is given'}; fit one by `evaluate.py --fit_quality PICTURES "
            f"--out {shlex.quote(str(path or 'gmm.safetensors'))}` and give it: --quality_model FILE"
        )
    stored = read_metadata(path) if path.suffix == ".safetensors" else {}
    if stored.get("format") != FORMAT:
        raise ValueError(f"{path} is no mixture for the quality score; fit one by evaluate.py --fit_quality")
    metadata = json.loads(stored["metadata"])
    if (made := metadata["encoder"]) != encoder:
        raise ValueError(f"{path} was fitted on features of {made}, not {encoder}; fit another")
    metadata |= {"file": path.name, "digest": file_digest(path)[:16]}
    return Mixture(**read_state(path), metadata=metadata)


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

    def pooled(self, image: Tensor) -> Tensor:
        """The ImageNet feature [1,d] of an image [3,h,w] in [-1,1], on the CPU."""
        assert self.imagenet is not None, "imagenet is not loaded"
        return self.imagenet.of([image]).cpu()


def load_networks(
    metrics: Collection[str],
    device: str = "cpu",
    *,
    clip: Path | None = None,
    dino: Path | None = None,
    inception: Path | None = None,
    alexnet: Path | None = None,
    mixture: Path | None = None,
) -> FeatureNetworks:
    """Load what the metrics need, by these paths or from the cache of the library that loads it.

    FileNotFoundError names model, file and flag of what is missing.
    """
    loaders: dict[str, tuple[set[str], Callable[[], tuple[Any, str]]]] = {  # network => metrics that need it
        "imagenet": ({"identity", "fidelity"}, lambda: (ImageNetFeatures(), IMAGENET)),
        "clip": ({"clip", "quality", "clip-fid"}, lambda: _named(load_clip(clip, device))),
        "dino": ({"dino"}, lambda: _named(load_dino(dino, device))),
        "lpips": ({"lpips"}, lambda: load_lpips(alexnet)),
        "inception": ({"inception-fid"}, lambda: load_inception(inception)),
    }
    loaded = {network: load() for network, (users, load) in loaders.items() if users & set(metrics)}
    found = {k: net.to(device) if isinstance(net, nn.Module) else net for k, (net, _) in loaded.items()}
    names = {network: name for network, (_, name) in loaded.items()}
    if "quality" in metrics:
        found["mixture"] = load_mixture(mixture, names["clip"])
        made = found["mixture"].metadata
        names["mixture"] = f"{made['file']} {made['digest']}, own, on {made['source']}"
    return FeatureNetworks(**found, names=names)


def _named(encoder: Encoder) -> tuple[Encoder, str]:
    return encoder, encoder.name


if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture
