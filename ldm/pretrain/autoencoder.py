"""First stage of a base: the autoencoder, of either kind; latents of zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import einsum, rearrange
from torch import Generator, Tensor

from ldm.features.imagenet import ImageNetFeatures
from ldm.models.autoencoder import Autoencoder
from ldm.pretrain.image_ops import choice, happens, over, placed, premultiplied, random_crop, uniform
from ldm.pretrain.picture_pack import Pack
from ldm.training.trainer import warm_cosine


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Images [b,3,H,W] => mean and standard deviation [c] of the posterior means."""
    modes = [vae.encode(x).latent_dist.mode().float() for x in batches]
    latents = torch.cat([rearrange(mode, "b c h w -> (b h w) c") for mode in modes])
    return latents.mean(0), latents.std(0)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """z => (z - mean) / std in the weights of `quant_conv`, and the inverse in `post_quant_conv`."""
    quant, post = vae.quant_conv, vae.post_quant_conv
    c = len(mean)
    quant.bias[:c] = (quant.bias[:c] - mean) / std
    quant.weight[:c] /= std[:, None, None, None]
    quant.bias[c:] -= 2 * std.log()  # the other half are log-variances
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[:, None, None]


PATCH = 8  # pixels per side whose mean colour is compared
# Weights of the three axes of a patch's mean colour: light, blue - yellow, red - green. Red - green varies
# least in photos; without a large weight the four channels encode edges instead, and grass turns brown.
COLOUR = (20.0, 40.0, 120.0)
AXES = ((3**-0.5, 3**-0.5, 3**-0.5), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))

SPREAD = (1.0, 6.0, 8.0)  # brings those axes to about unit variance


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images [b,c,H,W] in [-1,1], one per image."""
    mse = ((a.clamp(-1, 1) - b) / 2).square().mean((1, 2, 3))
    return -10 * torch.log10(mse.clamp_min(1e-10))


def colour_axes(image: Tensor, patch: int = PATCH) -> Tensor:
    """Every patch's mean colour on the three axes: [b,3,H,W] => [b,3,H/patch,W/patch]."""
    mean = F.avg_pool2d(image, patch)
    return einsum(mean, torch.tensor(AXES).to(mean), "b c h w, a c -> b a h w")


def colour_error(difference: Tensor) -> Tensor:
    """Weighted mean square of every patch's mean colour difference, [b,3,H,W] => scalar."""
    return (colour_axes(difference).square().mean((0, 2, 3)) * torch.tensor(COLOUR).to(difference)).mean()


def anchor_error(latents: Tensor, image: Tensor) -> Tensor:
    """How far the first three latent channels [b,4,h,w] are from the mean colours of [b,3,H,W] => scalar."""
    axes = colour_axes(image, image.shape[-1] // latents.shape[-1])
    return F.mse_loss(latents[:, :3].float(), axes * torch.tensor(SPREAD).to(axes)[:, None, None])


class VaeTraining(pl.LightningModule):
    """|x - D(E(x))| + MSE + perceptual distance + a faint KL term that keeps latents near unit scale.

    Latents are the posterior's means, as later stages use them, plus noise of a fixed deviation. With
    samples of the posterior the encoder stores information in its variance, which the means lack (after 2200
    steps: 25.2 dB from samples, 22.4 dB from means).

    For the share `anchored` of the training, the first latent channels are held to the patches' mean colours,
    with a weight that falls to 0; without it, a VAE trained from scratch loses all hues but one.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        lr: float,
        steps: int,
        perceptual: float,
        kl: float = 1e-6,
        noise: float = 0.05,
        anchored: float = 0.5,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.features = ImageNetFeatures() if perceptual else None
        self.lr, self.steps, self.perceptual, self.kl = lr, steps, perceptual, kl
        self.noise, self.anchored = noise, anchored

    def training_step(self, image: Tensor, i: int) -> Tensor:
        latents = self.vae.encode(image).latent_dist.mode().float()
        decoded = self.vae.decode(latents + self.noise * torch.randn_like(latents)).sample.float()
        difference = decoded - image
        colour = colour_error(difference)
        loss = difference.abs().mean() + 2 * difference.square().mean() + colour
        loss = loss + self.kl / 2 * latents.square().sum((1, 2, 3)).mean()
        if self.global_step < self.anchored * self.steps:
            held = 1 - self.global_step / (self.anchored * self.steps)
            loss = loss + held * anchor_error(latents, image)
        if self.features is not None:
            distance = self.features.perceptual_distance(decoded, image)
            loss = loss + self.perceptual * distance
            self.log("perceptual", distance, prog_bar=True)
        self.log_dict({"loss": loss, "colour": colour, "psnr": psnr(decoded, image).mean()}, prog_bar=True)
        return loss

    def validation_step(self, image: Tensor, i: int) -> None:
        decoded = self.vae.decode(self.vae.encode(image).latent_dist.mode()).sample
        self.log("val_psnr", psnr(decoded.float(), image).mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.vae.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.steps)}


RENDERED, CUT_OUTS = 0.2, 0.35  # shares of the crops: of relit scenes, of photos with a cut-out on them
SMALLEST = 0.4  # of the short side of a picture: what a crop shows at least


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
        layer, _ = placed(premultiplied(choice(self.objects, g)), round(1.4 * self.size), g)
        x, y = (round(uniform(0, 0.4, g) * self.size) for _ in range(2))
        layer = layer[:, y : y + self.size, x : x + self.size]
        order = torch.randperm(3, generator=g).tolist() if happens(0.5, g) else [0, 1, 2]
        return over(torch.cat([layer[order], layer[3:]]), photo)


class ResidualTraining(pl.LightningModule):
    """|x - D(E(x) + noise)| of an `Autoencoder`.

    The noise is a share of each channel's own standard deviation, so that larger latents do not help. With it
    the decoder tolerates what a diffusion model leaves in the latents.
    """

    def __init__(self, net: Autoencoder, lr: float, steps: int, noise: float = 0.05) -> None:
        super().__init__()
        self.net, self.lr, self.steps, self.noise = net, lr, steps, noise

    def training_step(self, image: Tensor, i: int) -> Tensor:
        latents = self.net.encode(image)
        spread = latents.detach().float().std((0, 2, 3), keepdim=True)
        decoded = self.net.decode(latents + self.noise * spread * torch.randn_like(latents)).float()
        loss = (decoded - image).abs().mean()
        self.log_dict({"loss": loss, "psnr": psnr(decoded.detach(), image).mean()}, prog_bar=True)
        return loss

    def validation_step(self, image: Tensor, i: int) -> None:
        decoded = self.net.decode(self.net.encode(image))
        self.log("val_psnr", psnr(decoded.float(), image).mean(), prog_bar=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01)
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.steps)}
