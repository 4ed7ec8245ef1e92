"""Random training batches composed from a pack: photos, and objects placed on photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ldm.pretrain.image_ops import (
    Box,
    choice,
    happens,
    jitter,
    jitter_layer,
    over,
    placed,
    premultiplied,
    random_crop,
    reference_of,
    region,
    scaled,
    shadow,
    squared,
    tight,
    to_scene,
    turned,
    uniform,
)
from ldm.pretrain.picture_pack import Pack


class Drawn(Dataset):
    """`steps` items; item i is `draw(count, generator)` and depends on (seed, i) alone."""

    def __init__(self, draw: Callable[[int, Generator], Any], count: int, steps: int, seed: int) -> None:
        self.draw, self.count, self.steps, self.seed = draw, count, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, i: int) -> Any:
        return self.draw(self.count, Generator().manual_seed(self.seed * 10**9 + i))


Sample = tuple[Tensor, Tensor, Box, list[Tensor], int]  # image, mask, place, references, object id

KINDS = {"photo": 0.05, "cutout": 0.4, "multiview": 0.3, "pair": 0.25}
SAME_POSE = 0.85  # share of the rendered objects whose first reference is the view in the image
RECOLOURED = 0.5  # share of the objects on photos whose colour channels are permuted: new objects
TURNED = 0.5  # share of the objects on photos that are rotated, by MAX_DEGREES at most
MAX_DEGREES = 15.0


class Composed(NamedTuple):
    """One batch: image [b,3,S,S] in [-1,1], mask [b,1,S,S] (1 = fill), references [b,1+n,3,R,R] in [-1,1].

    `place` [b,4] is the object's box in the image, x0 y0 x1 y1 in pixels.
    If an object has fewer than n further views, the reference is repeated. `object` [b] is an id of the
    pack's objects; 0: a rectangle of a photo.
    """

    image: Tensor
    mask: Tensor
    place: Tensor
    references: Tensor
    object: Tensor


class Composer:
    """Draws samples of four kinds from a pack; they depend on the generator alone."""

    def __init__(self, pack: Pack, size: int, reference_size: int, views: int = 5) -> None:
        self.pack, self.size, self.reference_size, self.views = pack, size, reference_size, views
        self.number = {name: 1 + i for i, name in enumerate(pack.multiview)}
        self.objects = 1 + len(pack.multiview) + len(pack.cutouts)  # the number of ids

    def batch(self, count: int, g: Generator) -> Composed:
        """`count` samples, their kinds drawn with the probabilities KINDS."""
        samples = [sample(g, 1 + self.views) for sample in self._kinds(count, g)]
        images, masks, places, references, objects = zip(*samples, strict=True)
        stacked = torch.stack([self._padded(views) for views in references])
        return Composed(
            torch.stack(images) * 2 - 1,
            torch.stack(masks),
            torch.tensor(places),
            stacked * 2 - 1,
            torch.tensor(objects),
        )

    def references(self, count: int, g: Generator) -> Tensor:
        """References alone, [b,1+n,3,R,R] in [-1,1]: what an image encoder is trained on."""
        return self.batch(count, g).references

    def images(self, count: int, g: Generator) -> Tensor:
        """`count` images alone, [b,3,S,S] in [-1,1]: what an autoencoder is trained on."""
        return torch.stack([sample(g, 0)[0] for sample in self._kinds(count, g)]) * 2 - 1

    def _kinds(self, count: int, g: Generator) -> list[Callable[[Generator, int], Sample]]:
        draws = {
            "photo": self._photo,
            "cutout": self._cutout,
            "multiview": self._multiview,
            "pair": self._pair,
        }
        kinds = torch.multinomial(torch.tensor(list(KINDS.values())), count, replacement=True, generator=g)
        return [draws[list(KINDS)[int(kind)]] for kind in kinds]

    def _padded(self, views: list[Tensor]) -> Tensor:
        return torch.stack((views + views[:1] * (1 + self.views))[: 1 + self.views])

    def _photo(self, g: Generator, n: int) -> Sample:
        image = random_crop(choice(self.pack.photos, g), self.size, g)
        w, h = (round(uniform(0.25, 0.6, g) * self.size) for _ in range(2))
        left, top = (int(torch.randint(self.size - side, (), generator=g)) for side in (w, h))
        content = image[:, top : top + h, left : left + w]
        views = [squared(jitter(content, g, 0.12), self.reference_size) for _ in range(n)]
        box = (left, top, left + w, top + h)
        return image, region(box, self.size, g), box, views, 0

    def _composed(self, target: Tensor, others: list[Tensor], number: int, g: Generator) -> Sample:
        """`target` onto a photo, `others` as its references (premultiplied layers)."""
        if happens(RECOLOURED, g):
            order = torch.randperm(3, generator=g)
            target, *others = (torch.cat([layer[order], layer[3:]]) for layer in (target, *others))
            number = 0
        if happens(TURNED, g):
            degrees = uniform(-MAX_DEGREES, MAX_DEGREES, g)
            target, *others = (turned(layer, degrees) for layer in (target, *others))
        scene = random_crop(choice(self.pack.photos, g), self.size, g)
        layer, box = placed(target, self.size, g)
        layer = to_scene(jitter_layer(layer, g, 0.1), scene, uniform(0, 0.5, g))
        if happens(0.7, g):
            scene = scene * (1 - shadow(layer[3:], box, g))
        views = [reference_of(other, choice(self.pack.photos, g), self.reference_size, g) for other in others]
        return over(layer, scene), region(box, self.size, g), box, views, number

    def _cutout(self, g: Generator, n: int) -> Sample:
        i = int(torch.randint(len(self.pack.cutouts), (), generator=g))
        layer = premultiplied(self.pack.cutouts[i])
        layer = layer.flip(-1) if happens(0.5, g) else layer
        return self._composed(layer, [layer] * n, 1 + len(self.pack.multiview) + i, g)

    def _multiview(self, g: Generator, n: int) -> Sample:
        name = choice(list(self.pack.multiview), g)
        views = self.pack.multiview[name]
        order = torch.randperm(len(views), generator=g)[: 1 + n].tolist()
        target, *others = (premultiplied(views[i]) for i in order)
        return self._composed(target, _perhaps_first(target, others, n, g), self.number[name], g)

    def _pair(self, g: Generator, n: int) -> Sample:
        pair = choice(self.pack.pairs, g)
        layer = torch.cat([pair.truth, pair.mask]).float() / 255
        layer = layer.flip(-1) if happens(0.5, g) else layer
        rows, columns = (layer[3] > 0.5).any(1).nonzero(), (layer[3] > 0.5).any(0).nonzero()
        full = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        image, box = self._window(layer[:3], full, g)
        views = self.pack.multiview[pair.object_id]
        order = torch.randperm(len(views), generator=g)[:n].tolist()
        own = tight(torch.cat([layer[:3] * layer[3:], layer[3:]]))
        layers = _perhaps_first(own, [premultiplied(views[i]) for i in order], n, g)
        references = [
            reference_of(each, choice(self.pack.photos, g), self.reference_size, g) for each in layers
        ]
        return image, region(box, self.size, g), box, references, self.number[pair.object_id]

    def _window(self, image: Tensor, box: Box, g: Generator) -> tuple[Tensor, Box]:
        """A random square of [3,H,W] around the box => [3,S,S] and the box in it."""
        side_full = min(image.shape[-2:])
        longer = max(box[2] - box[0], box[3] - box[1])
        side = round(uniform(min(longer * 1.35, side_full), side_full, g))
        low_x, high_x = max(0, box[2] - side), min(box[0], image.shape[-1] - side)
        low_y, high_y = max(0, box[3] - side), min(box[1], image.shape[-2] - side)
        left, top = round(uniform(low_x, high_x, g)), round(uniform(low_y, high_y, g))
        crop = scaled(image[:, top : top + side, left : left + side], self.size, self.size)
        x0, y0, x1, y1 = (
            round((v - o) * self.size / side) for v, o in zip(box, (left, top, left, top), strict=True)
        )
        return crop, (max(0, x0), max(0, y0), min(self.size, x1), min(self.size, y1))


def _perhaps_first(own: Tensor, others: list[Tensor], n: int, g: Generator) -> list[Tensor]:
    """At most n references: the others; with probability SAME_POSE, the view in the image comes first."""
    return [own, *others][:n] if happens(SAME_POSE, g) else others
