"""Training of the networks beside the UNet: autoencoder, and cut-out (matting) network."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ldm.compositing.matting import WITH_BOX, MattingNetwork
from ldm.data.random_draws import happens, uniform
from ldm.features.imagenet import MEAN, STD, ImageNetFeatures
from ldm.models.autoencoder import Autoencoder
from ldm.pretrain.image_ops import batch_psnr, choice, over, placed_at_random, premultiplied, random_crop
from ldm.pretrain.matting_samples import MattingBatch
from ldm.pretrain.picture_pack import Pack
from ldm.training.trainer import cosine_with_warmup

RENDERED, CUT_OUTS = 0.2, 0.35  # shares of the crops: of relit scenes, of photos with a cut-out on them
SMALLEST = 0.4  # of the short side of a picture: what a crop shows at least
SLOWER = 0.2  # rate of the cut-out network's encoder, as a share of the others'


class AutoencoderCrops:
    """Draws crops [count,3,size,size] in [-1,1] from a pack's photos, cut-outs, views and relit scenes."""

    def __init__(self, pack: Pack, size: int) -> None:
        self.pack, self.size = pack, size
        self.objects = pack.cutouts + [view for views in pack.multiview.values() for view in views]

    def batch(self, count: int, g: Generator) -> Tensor:
        """`count` crops."""
        return torch.stack([self._crop(g) for _ in range(count)]) * 2 - 1

    def _crop(self, g: Generator) -> Tensor:
        chance = uniform(0, 1, g)
        if chance < RENDERED and self.pack.relit:
            scene = choice(self.pack.relit, g)
            return random_crop(scene.truth if happens(0.7, g) else scene.background, self.size, g)
        photo = random_crop(choice(self.pack.photos, g), self.size, g, SMALLEST)
        if chance > RENDERED + CUT_OUTS:
            return photo
        layer, _ = placed_at_random(premultiplied(choice(self.objects, g)), round(1.4 * self.size), g)
        x, y = (round(uniform(0, 0.4, g) * self.size) for _ in range(2))
        layer = layer[:, y : y + self.size, x : x + self.size]
        order = torch.randperm(3, generator=g).tolist() if happens(0.5, g) else [0, 1, 2]
        return over(torch.cat([layer[order], layer[3:]]), photo)


class ResidualTraining(pl.LightningModule):
    """|x - D(E(x) + noise)| of an `Autoencoder`; the decoder learns to tolerate a diffusion model's errors.

    The noise is a share of each channel's own standard deviation, so that larger latents do not help.
    """

    def __init__(self, net: Autoencoder, lr: float, steps: int, noise: float = 0.05) -> None:
        super().__init__()
        self.net, self.lr, self.steps, self.noise = net, lr, steps, noise

    def training_step(self, image: Tensor, i: int) -> Tensor:
        latents = self.net.encode(image)
        std = latents.detach().float().std((0, 2, 3), keepdim=True)
        decoded = self.net.decode(latents + self.noise * std * torch.randn_like(latents)).float()
        loss = (decoded - image).abs().mean()
        self.log_dict({"loss": loss, "psnr": batch_psnr(decoded.detach(), image).mean()}, prog_bar=True)
        return loss

    def validation_step(self, image: Tensor, i: int) -> None:
        decoded = self.net.decode(self.net.encode(image))
        self.log("val_psnr", batch_psnr(decoded.float(), image).mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {"optimizer": optimizer, "lr_scheduler": cosine_with_warmup(optimizer, self.steps)}


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
