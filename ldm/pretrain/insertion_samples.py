"""Training samples that ask for what insertion needs: light, cast shadows, the object, the background.

A sample is an image, and what of the region to fill the model is shown. Kinds, by `KINDS`:
- `relit`: a rendered scene with its true light and shadow, shown with the object cut out under another light;
- `photo`: a photo, shown with its object or a silhouette in it recoloured (self-supervised harmonisation);
- `composed`: an object on a photo, references are other views of it;
- `hole`: a photo with a hole and no object: the background is continued.
Inside the region to fill the model is shown everything (`scene`) or only mid-grey (`nothing`). Images are
[3,S,S] in [0,1] here, masks [1,S,S] (1 = fill); every random number comes from a CPU generator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ldm.compositing.composite_fill import recoloured
from ldm.data.random_draws import happens, uniform
from ldm.pretrain.image_ops import (
    GREY,
    Box,
    choice,
    jitter,
    over,
    placed_at_random,
    premultiplied,
    random_crop,
    reference_of,
    region,
    scaled,
    shadow,
    square_view,
    tight,
    to_scene,
)
from ldm.pretrain.picture_pack import Pack, Relit

KINDS = {"relit": 0.34, "photo": 0.2, "composed": 0.32, "hole": 0.14}
SHOWN = ("scene", "nothing")
SHOWS = {
    "relit": (0.65, 0.35),
    "photo": (0.9, 0.1),
    "composed": (0.3, 0.7),
    "hole": (0.0, 1.0),
}
SAME_POSE = 0.6  # share of the first references that show the very view that is to be drawn
SHADOW = 0.06  # a change of a pixel that counts as shadow
OWN_OBJECT = 0.7  # share of the photos with a known silhouette whose own object is recoloured
EXPOSED = 0.5  # share of the relit scenes and photos in another exposure and white balance
EXPOSURE, TINT = 0.2, 0.06  # standard deviations of their logarithms
REACH = 0.6  # of the object's box: how far a region may follow its shadow


class InsertionBatch(NamedTuple):
    """A batch: image and shown [b,3,S,S] in [-1,1], mask [b,1,S,S] (1 = fill), references [b,1+n,3,R,R].

    `own` [b,1,S,S] is 1 where the object is. `object` [b]: 0, or -1 where there is no object, so that the
    context is the unconditional one.
    """

    image: Tensor
    shown: Tensor
    mask: Tensor
    own: Tensor
    references: Tensor
    object: Tensor


class Composition(NamedTuple):
    """One sample before a way to show it is chosen; `scene` is the image with the object in another light."""

    image: Tensor
    scene: Tensor
    alpha: Tensor
    mask: Tensor
    references: list[Tensor]


def recoloured_layer(layer: Tensor, g: Generator, gain: float = 1.0, amount: float = 1.0) -> Tensor:
    """`recoloured` for a premultiplied layer [4,h,w], after a gain."""
    colour = (layer[:3] / layer[3:].clamp_min(1e-3) * gain).clamp(0, 1)
    return torch.cat([recoloured(colour, g, amount) * layer[3:], layer[3:]])


def box_of(alpha: Tensor) -> Box:
    """Alpha [H,W] => the box of what is visible, x0 y0 x1 y1; of an empty one the middle."""
    rows, columns = (alpha > 0.3).any(1).nonzero(), (alpha > 0.3).any(0).nonzero()
    if not len(rows):
        h, w = alpha.shape
        return w // 4, h // 4, 3 * w // 4, 3 * h // 4
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


class InsertionComposer:
    """Draws samples from a pack; a sample has 1 + `views` references."""

    def __init__(self, pack: Pack, size: int, reference_size: int, views: int = 2) -> None:
        if not pack.relit:
            raise ValueError(
                "the pack has no relit scenes; write it again from a folder with insertbench/relit in it"
            )
        self.photos, self.cutouts = pack.photos, pack.cutouts
        known = zip(pack.photos, pack.silhouettes, strict=True) if pack.silhouettes else ()
        self.subjects = [torch.cat(pair) for pair in known if pair[1] is not None and usable(pair[1])]
        self.multiview, self.relit = pack.multiview, pack.relit
        self.size, self.reference_size, self.views = size, reference_size, views

    def batch(self, count: int, g: Generator) -> InsertionBatch:
        """`count` samples of kinds drawn by KINDS."""
        kinds = torch.multinomial(torch.tensor(list(KINDS.values())), count, replacement=True, generator=g)
        names = list(KINDS)
        return stack([self.sample(names[int(kind)], g) for kind in kinds])

    def sample(self, kind: str, g: Generator, shows: str = "", item: Relit | None = None) -> InsertionBatch:
        """One sample, a batch of 1; `shows`: one of SHOWN, by default drawn by SHOWS."""
        how = shows or SHOWN[int(torch.multinomial(torch.tensor(SHOWS[kind]), 1, generator=g))]
        if kind == "relit":
            drawn = self._relit(item or choice(self.relit, g), g)
        else:
            drawn = getattr(self, f"_{kind}")(g)
        return self._shown(drawn, how, kind == "hole")

    def _shown(self, drawn: Composition, how: str, plain: bool) -> InsertionBatch:
        image, scene, alpha, mask, references = drawn
        inside = torch.full_like(alpha, how == "scene")
        shown = image * (1 - mask) + (scene * inside + GREY * (1 - inside)) * mask
        views = torch.stack((references + references[:1] * (1 + self.views))[: 1 + self.views])
        number = torch.tensor(-1 if plain else 0)
        parts = (image * 2 - 1, shown * 2 - 1, mask, alpha, views * 2 - 1, number)
        return InsertionBatch(*(part[None] for part in parts))

    def _relit(self, item: Relit, g: Generator) -> Composition:
        k = int(torch.randint(len(item.posed), (), generator=g))
        cut = item.posed[k].float() / 255
        cut = torch.cat([cut[:3] * cut[3:], cut[3:]])
        everything = torch.cat(
            [item.truth.float() / 255, item.background.float() / 255, cut, item.mask.float() / 255]
        )
        everything = everything.flip(-1) if happens(0.5, g) else everything
        everything = self._window(everything, box_of(everything[10]), g)
        truth, background, cut, mask = everything.split([3, 3, 4, 1])
        light = exposure(g)
        truth, background = (truth * light).clamp(0, 1), (background * light).clamp(0, 1)
        box = box_of(mask[0])
        within = self._region(box, (truth - background).abs().amax(0), g)
        gain = (self._mean(truth, mask) / self._mean(cut[:3], cut[3:], True)) ** uniform(0.0, 1.0, g)
        layer = recoloured_layer(cut, g, min(max(gain, 0.4), 2.5), 0.4)
        others = [premultiplied(view) for view in item.views]
        first = [premultiplied(item.posed[1 - k])] if happens(SAME_POSE, g) else []
        views = self._references([*first, *others], g)
        return Composition(truth, over(layer, background), layer[3:], within, views)

    @staticmethod
    def _mean(image: Tensor, weight: Tensor, premultiplied: bool = False) -> float:
        weighed = image if premultiplied else image * weight
        return float(weighed.sum() / (3 * weight.sum()).clamp_min(1e-3)) + 0.02

    def _region(self, box: Box, change: Tensor, g: Generator) -> Tensor:
        """A region around the box; half of them follow what the object changes around it, its shadow."""
        if happens(0.5, g):
            return region(box, self.size, g)
        x0, y0, x1, y1 = box
        dx, dy = REACH * (x1 - x0), REACH * (y1 - y0)
        near = torch.zeros_like(change)
        top, left = max(0, round(y0 - dy)), max(0, round(x0 - dx))
        near[top : round(y1 + dy), left : round(x1 + dx)] = 1
        a0, b0, a1, b1 = box_of((change > SHADOW) * near)
        return region((min(x0, a0), min(y0, b0), max(x1, a1), max(y1, b1)), self.size, g)

    def _window(self, stacked: Tensor, box: Box, g: Generator) -> Tensor:
        """A random square of [c,H,W] that contains the box => [c,S,S]."""
        full = min(stacked.shape[-2:])
        longer = max(box[2] - box[0], box[3] - box[1])
        side = round(uniform(min(longer * 1.4, full), full, g))
        low_x, high_x = max(0, box[2] - side), min(box[0], stacked.shape[-1] - side)
        low_y, high_y = max(0, box[3] - side), min(box[1], stacked.shape[-2] - side)
        left, top = round(uniform(low_x, max(low_x, high_x), g)), round(uniform(low_y, max(low_y, high_y), g))
        return scaled(stacked[:, top : top + side, left : left + side], self.size, self.size)

    def _references(self, layers: list[Tensor], g: Generator) -> list[Tensor]:
        return [
            reference_of(tight(layer), choice(self.photos, g), self.reference_size, g)
            for layer in layers[: 1 + self.views]
        ]

    def _silhouette(self, g: Generator) -> tuple[Tensor, Box]:
        """Alpha [1,S,S] of a random object somewhere, and its box."""
        layer = (
            choice(self.cutouts, g)
            if happens(0.5, g)
            else choice(self.multiview[choice(list(self.multiview), g)], g)
        )
        placed_layer, box = placed_at_random(premultiplied(layer), self.size, g)
        return placed_layer[3:], box

    def _photo(self, g: Generator) -> Composition:
        if self.subjects and happens(OWN_OBJECT, g):
            subject = choice(self.subjects, g).float() / 255
            subject = subject.flip(-1) if happens(0.5, g) else subject
            image, alpha = self._window(subject, box_of(subject[3]), g).split([3, 1])
            box = box_of(alpha[0])
        else:
            image = random_crop(choice(self.photos, g), self.size, g)
            alpha, box = self._silhouette(g)
        image = (image * exposure(g)).clamp(0, 1)
        x0, y0, x1, y1 = box
        content = image[:, y0:y1, x0:x1]
        grey = content * alpha[:, y0:y1, x0:x1] + GREY * (1 - alpha[:, y0:y1, x0:x1])
        views = [square_view(jitter(grey, g, 0.1), self.reference_size) for _ in range(1 + self.views)]
        scene = image * (1 - alpha) + recoloured(image, g) * alpha
        return Composition(image, scene, alpha, region(box, self.size, g), views)

    def _object(self, g: Generator) -> list[Tensor]:
        """A cut-out, or several views of an object, in random order."""
        if happens(0.4, g):
            return [premultiplied(choice(self.cutouts, g))]
        views = self.multiview[choice(list(self.multiview), g)]
        order = torch.randperm(len(views), generator=g)[: 2 + self.views].tolist()
        return [premultiplied(views[i]) for i in order]

    def _composed(self, g: Generator) -> Composition:
        target, *others = self._object(g)
        if not others:
            others = [target]
        elif happens(SAME_POSE, g):
            others = [target, *others]
        if happens(0.5, g):
            order = torch.randperm(3, generator=g).tolist()
            target, *others = (torch.cat([each[order], each[3:]]) for each in (target, *others))
        ground = random_crop(choice(self.photos, g), self.size, g)
        layer, box = placed_at_random(target, self.size, g)
        lit = to_scene(layer, ground, uniform(0.2, 0.8, g))
        dark = shadow(layer[3:], box, g) if happens(0.8, g) else torch.zeros_like(layer[3:])
        wrong = recoloured_layer(layer, g, 1.0, 0.8)
        image, scene = over(lit, ground * (1 - dark)), over(wrong, ground)
        return Composition(image, scene, layer[3:], region(box, self.size, g), self._references(others, g))

    def _hole(self, g: Generator) -> Composition:
        image = random_crop(choice(self.photos, g), self.size, g)
        w, h = (round(uniform(0.2, 0.55, g) * self.size) for _ in range(2))
        left, top = (int(torch.randint(self.size - side, (), generator=g)) for side in (w, h))
        mask = region((left, top, left + w, top + h), self.size, g)
        if happens(0.3, g):
            mask = F.max_pool2d(self._silhouette(g)[0][None], 9, 1, 4)[0].gt(0.3).float()
        nothing = torch.full((3, self.reference_size, self.reference_size), GREY)
        return Composition(image, image, torch.zeros_like(mask), mask, [nothing])


def usable(silhouette: Tensor) -> bool:
    """Whether a silhouette [1,H,W] (255 = object) is an object that is neither tiny nor fills the picture."""
    share = float((silhouette > 127).float().mean())
    return 0.03 < share < 0.5


def exposure(g: Generator) -> Tensor:
    """Gains [3,1,1] of a picture's channels: those of another exposure and white balance, or 1."""
    strength = float(happens(EXPOSED, g))
    gain = EXPOSURE * torch.randn((), generator=g) + TINT * torch.randn(3, 1, 1, generator=g)
    return torch.exp(strength * gain)


def stack(samples: list[InsertionBatch]) -> InsertionBatch:
    """Batches of 1 => one batch."""
    return InsertionBatch(*(torch.cat(parts) for parts in zip(*samples, strict=True)))
