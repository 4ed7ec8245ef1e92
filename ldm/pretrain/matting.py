"""Training of the matting network: it starts from ImageNet weights, its first layers stay as they are."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.compositing.matting import WITH_BOX, MattingNetwork
from ldm.features.imagenet import MEAN, STD, ImageNetFeatures
from ldm.pretrain.matting_samples import MattingBatch
from ldm.training.trainer import cosine_with_warmup

SLOWER = 0.2  # rate of the encoder's weights, as a share of the new ones'


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, target: nn.Conv2d) -> None:
    """Write a convolution without bias and the normalisation behind it into one convolution with bias."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    target.weight.copy_(conv.weight * scale[:, None, None, None])
    target.bias.copy_(norm.bias - norm.running_mean * scale)


@torch.no_grad()
def start_from_imagenet(network: MattingNetwork) -> None:
    """EfficientNet-Lite0's weights (extra `pretrain`) into the encoder, which then takes RGB in [-1,1]."""
    source = ImageNetFeatures().net
    fold(source._conv_stem, source._bn0, network.stem)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    weight = network.stem.weight.clone()
    network.stem.bias.add_((weight * ((0.5 - mean) / std)[:, None, None]).sum((1, 2, 3)))
    network.stem.weight.copy_(weight / (2 * std)[:, None, None])
    for block, theirs in zip(network.blocks, source._blocks, strict=False):
        if block.expand is not None:
            fold(theirs._expand_conv, theirs._bn0, block.expand)
        fold(theirs._depthwise_conv, theirs._bn1, block.depthwise)
        fold(theirs._project_conv, theirs._bn2, block.project)
    nn.init.zeros_(network.box.weight)


def gradient_error(alpha: Tensor, truth: Tensor) -> Tensor:
    """Mean error of the differences between neighbouring pixels across and along, [b,1,S,S] => scalar."""
    return sum(((alpha - truth).diff(dim=dim).abs().mean() for dim in (-1, -2)), alpha.new_zeros(()))


def overlap(alpha: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of two alphas [b,1,S,S] => [b]; of two empty ones 1."""
    both, either = (f(alpha, truth).sum((1, 2, 3)) for f in (torch.minimum, torch.maximum))
    return (both + 1e-6) / (either + 1e-6)


def matting_loss(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Terms by name, and `loss`, their sum: cross-entropy, Dice (1 - overlap), L1, L1 of the gradients."""
    alpha = logits.sigmoid()
    terms = {
        "cross_entropy": F.binary_cross_entropy_with_logits(logits, truth),
        "dice": (1 - 2 * (alpha * truth).sum((1, 2, 3)) / ((alpha + truth).sum((1, 2, 3)) + 1)).mean(),
        "l1": (alpha - truth).abs().mean(),
        "gradient": gradient_error(alpha, truth),
    }
    return {"loss": sum(terms.values(), alpha.new_zeros(())), **terms}


class MattingTraining(pl.LightningModule):
    """Trains all but the first layers, which see no box; validated by the overlap on fixed batches."""

    def __init__(self, network: MattingNetwork, lr: float, steps: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.lr, self.steps = lr, steps
        for part in (network.stem, network.blocks[:WITH_BOX]):
            part.requires_grad_(False)

    def training_step(self, batch: MattingBatch, i: int) -> Tensor:
        image, alpha = batch
        logits = self.network(image.contiguous(memory_format=torch.channels_last))
        terms = matting_loss(logits, alpha)
        found = overlap(logits.detach().sigmoid(), alpha).mean()
        self.log_dict({**terms, "overlap": found}, prog_bar=True)
        return terms["loss"]

    def validation_step(self, batch: MattingBatch, i: int) -> None:
        alpha = self.network(batch.image).sigmoid()
        with_box = batch.image[:, 3].amin((1, 2)) == 0
        found = overlap(alpha, batch.alpha)
        for name, part in (("val_with_box", found[with_box]), ("val_whole", found[~with_box])):
            if len(part):
                self.log(name, part.mean(), batch_size=len(part))

    def configure_optimizers(self) -> dict:
        encoder = [p for p in self.network.blocks.parameters() if p.requires_grad]
        known = {id(p) for p in self.network.blocks.parameters()}
        new = [p for p in self.network.parameters() if p.requires_grad and id(p) not in known]
        groups = [{"params": new}, {"params": encoder, "lr": self.lr * SLOWER}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {"optimizer": optimizer, "lr_scheduler": cosine_with_warmup(optimizer, self.steps)}
