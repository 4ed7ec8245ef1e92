"""Networks for scores, by path or from a cache: CLIP, DINOv2, Inception v3, LPIPS. Nothing is downloaded.

LPIPS (Zhang et al. 2018, version 0.1, AlexNet) is a map, so that a region can be scored by itself; that of
torchmetrics needs torchvision.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchmetrics
from einops import rearrange
from torch import Tensor, nn

from ldm.features.imagenet import MEAN, SIZE, STD
from ldm.models.checkpoint import first_few, load_strictly, read_state
from ldm.models.conditioner import CLIP_MEAN, CLIP_STD
from ldm.models.weight_files import fingerprint, refusing_damage

HUB_OFFSET = 0.1  # patches
CLIP, DINO = "openai/clip-vit-base-patch32", "facebook/dinov2-giant"
Colour = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen network, its name with its weights' fingerprint, and the normalisation it expects."""

    net: nn.Module
    name: str
    mean: Colour
    std: Colour

    def normalised(self, image: Tensor) -> Tensor:
        """Image [b,3,H,W] in [-1,1] => by this network's own mean and standard deviation."""
        mean, std = (torch.tensor(x).to(image)[:, None, None] for x in (self.mean, self.std))
        return ((image + 1) / 2 - mean) / std

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """[b,3,224,224], normalised => features [b,d] on the CPU: CLIP's embedding, DINOv2's class token."""
        found = self.net(image.to(next(self.net.parameters()).device))
        embeds = getattr(found, "image_embeds", None)
        return (found.last_hidden_state[:, 0] if embeds is None else embeds).float().cpu()


def load_clip(folder: Path | None = None, device: str = "cpu") -> Encoder:
    """OpenAI's ViT-B/32 with its projection (512-d), from a folder of transformers' layout or the cache."""
    from transformers import CLIPVisionModelWithProjection as Clip

    net, name = _load(Clip, "CLIP ViT-B/32", CLIP, folder, "--clip")
    return Encoder(net.to(device), name, CLIP_MEAN, CLIP_STD)


def load_dino(folder: Path | None = None, device: str = "cpu") -> Encoder:
    """DINOv2 ViT-g/14 (1536-d), likewise; its positions are brought to 224 px as in torch.hub's code."""
    from transformers import Dinov2Model

    net, name = _load(Dinov2Model, "DINOv2 ViT-g/14", DINO, folder, "--dino")
    positions = net.embeddings.position_embeddings
    positions.data = hub_positions(positions.data, SIZE // net.config.patch_size)
    return Encoder(net.to(device), name, MEAN, STD)


def hub_positions(positions: Tensor, side: int) -> Tensor:
    """DINOv2's class and patch positions [1,1+n*n,d] => [1,1+side*side,d], as torch.hub's code.

    Bicubic, by a factor that is 0.1 of a patch larger than `side / n`: its `interpolate_offset`.
    """
    n = isqrt(positions.shape[1] - 1)
    if n == side:
        return positions
    grid = rearrange(positions[:, 1:].float(), "1 (h w) d -> 1 d h w", h=n)
    grid = F.interpolate(grid, scale_factor=(side + HUB_OFFSET) / n, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], rearrange(grid, "1 d h w -> 1 (h w) d").to(positions)], dim=1)


def _load(kind: Any, what: str, published: str, folder: Path | None, flag: str) -> tuple[nn.Module, str]:
    """The network with all its weights, and its name: `<source> <fingerprint>`."""
    if folder is not None and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{what}: no config.json in {folder}; {flag} takes a folder with config.json and "
            f"model.safetensors, as {published} has them"
        )
    with refusing_damage(folder or Path(published)):
        try:
            net, info = _quietly(kind, str(folder or published))
        except OSError as error:
            raise FileNotFoundError(
                f"{what}: model.safetensors is not in {folder or 'the Hugging Face cache'}; fetch it by `hf "
                f"download {published}` where there is a network, or give its folder: {flag} FOLDER"
            ) from error
    if lacking := sorted(info["missing_keys"]) + [str(key[0]) for key in info["mismatched_keys"]]:
        raise ValueError(f"{folder or published} is no {what}: it lacks {first_few(lacking)}; fix {flag}")
    source = published if folder is None else folder.name
    return net.eval().requires_grad_(False), f"{source} {fingerprint(net.state_dict())}"


def _quietly(kind: Any, source: str) -> tuple[nn.Module, dict[str, Any]]:
    """Load by transformers, with its report and without its warning that CLIP's text half is unused."""
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(
            source, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        logging.set_verbosity(shown)
        logging.enable_progress_bar()


INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
FEATURES = "2048"  # the pooled ones


def load_inception(path: Path | None = None) -> tuple[nn.Module, str]:
    """uint8 [b,3,H,W] => features [b,2048], as `features_of` calls it; and `<file> <fingerprint>`."""
    file = weights_file("Inception v3 (FID)", path, INCEPTION, INCEPTION_URL, "--inception")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ModuleNotFoundError(
            f"Inception FID needs torch-fidelity ({error}); run `pip install '.[eval]'`"
        ) from error
    state = read_state(file)  # as data only: torch-fidelity itself would run code of a pickle
    net = FeatureExtractorInceptionV3("inception-v3-compat", [FEATURES], str(file))
    return net, f"{file.name} {fingerprint(state)}"


@torch.no_grad()
def features_of(net: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels uint8 [b,3,H,W] of any size => features [b,2048] on the CPU."""
    return net(pixels.to(next(net.parameters()).device))[0].float().cpu()


def weights_file(what: str, given: Path | None, name: str, url: str, flag: str) -> Path:
    """The given file, or the one of this name in torch's download cache; FileNotFoundError in one line."""
    file = given or Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        raise FileNotFoundError(f"{what}: no {file}; fetch {url} there, or say where it is: {flag} FILE")
    return file


ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_URL = f"https://download.pytorch.org/models/{ALEXNET}"
WIDTHS = (64, 192, 384, 256, 256)  # channels of the five layers that are compared
AFTER = (1, 4, 7, 9, 11)  # the ReLU behind each, in torchvision's numbering
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # [-1,1] => about ImageNet's normalisation


class Lpips(nn.Module):
    """Two images [1,3,H,W] in [-1,1], 64 px a side at least => their distance at every pixel [H,W]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.lins = nn.ParameterList([nn.Parameter(torch.zeros(1, width, 1, 1)) for width in WIDTHS])

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        maps = []
        for x, y, weight in zip(self._layers(a), self._layers(b), self.lins, strict=True):
            difference = ((x - y).square() * weight).sum(1, keepdim=True)
            maps.append(F.interpolate(difference, a.shape[2:], mode="bilinear", align_corners=False))
        return torch.stack(maps).sum(0)[0, 0]

    def _layers(self, image: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(x).to(image)[:, None, None] for x in (SHIFT, SCALE))
        x, out = (image - shift) / scale, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in AFTER:
                out.append(x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return out


def load_lpips(path: Path | None = None) -> tuple[Lpips, str]:
    """LPIPS with torchvision's AlexNet file, and `<file> <fingerprint>`."""
    file = weights_file("AlexNet (LPIPS)", path, ALEXNET, ALEXNET_URL, "--alexnet")
    linear = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    learnt = read_state(linear)
    lins = {f"lins.{i}": learnt[f"lin{i}.model.1.weight"] for i in range(len(WIDTHS))}
    trunk = {key: value for key, value in read_state(file).items() if key.startswith("features.")}
    net = Lpips()
    load_strictly(net, trunk | lins, f"the AlexNet of LPIPS ({file})")
    return net.eval().requires_grad_(False), f"{file.name} {fingerprint(net.state_dict())}"
