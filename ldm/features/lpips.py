"""LPIPS (Zhang et al. 2018, version 0.1, AlexNet) as a map, so that a region can be scored by itself.

The linear weights come with torchmetrics, the AlexNet's by path or from torch's cache. torchmetrics' own
class needs torchvision and returns only the mean over a whole picture.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn

from ldm.features.encoders import weights_file
from ldm.models.checkpoint import read_state
from ldm.models.state_dict import fingerprint, load_strictly

FILE = "alexnet-owt-7be5be79.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
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
    file = weights_file("AlexNet (LPIPS)", path, FILE, URL, "--alexnet")
    linear = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    learnt = read_state(linear)
    lins = {f"lins.{i}": learnt[f"lin{i}.model.1.weight"] for i in range(len(WIDTHS))}
    trunk = {key: value for key, value in read_state(file).items() if key.startswith("features.")}
    net = Lpips()
    load_strictly(net, trunk | lins, f"the AlexNet of LPIPS ({file})")
    return net.eval().requires_grad_(False), f"{file.name} {fingerprint(net.state_dict())}"
