"""Training samples of the matting network: objects with exact alpha on photos, in a loosely drawn box.

A picture is float32 [H,W,3] in [0,1], a layer float32 [H,W,4] with its colour premultiplied by alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor

from ldm.pretrain.picture_pack import Pack

Rng = np.random.Generator
SIZES = (160, 224)  # pixels: a batch has one of them
WHOLE = 0.3  # share of the samples that show a whole picture without a box
SCENES = 0.5  # share of the samples that are not composed: photos with silhouettes, rendered scenes
SHOWS, NOTHING = 0.015, 0.002  # of a photo: the least area of its object; the most of one without an object
CANVAS = (150, 330)  # pixels: the longer side of a composed picture
RECOLOURED, TEXTURED, LIKE_GROUND, EXTREME = 0.3, 0.35, 0.22, 0.08  # shares of the objects
OCCLUDED = 0.06  # share of the objects that something stands in front of
LOOSE = 0.2  # of the box's sides: how far it is drawn from the object, at most
CUTS = 0.04  # likewise: how far it cuts into the object, in a quarter of the samples


class MattingBatch(NamedTuple):
    """`image` [b,4,S,S]: RGB in [-1,1] and the box (1 = inside); `alpha` [b,1,S,S] in [0,1]."""

    image: Tensor
    alpha: Tensor


class MattingComposer:
    """Draws matting samples from a pack; they depend on the generator alone."""

    def __init__(self, pack: Pack, sizes: Sequence[int] = SIZES) -> None:
        views = [view for layers in pack.multiview.values() for view in layers]
        relit = [layer for scene in pack.relit for layer in (*scene.posed, *scene.views)]
        # drawings and renders: the source is drawn first, so that no one of them prevails
        self.layers = [[_pixels(x) for x in source] for source in (pack.cutouts, views, relit) if source]
        self.photos = [_pixels(x) for x in pack.photos]
        known = [(i, _pixels(x)) for i, x in enumerate(pack.silhouettes) if x is not None]
        area = {i: (silhouette > 127).mean() for i, silhouette in known}
        photographed = [(self.photos[i], silhouette) for i, silhouette in known if area[i] >= SHOWS]
        rendered = [(_pixels(scene.truth), _pixels(scene.mask)) for scene in pack.relit]
        self.scenes = [source for source in (photographed, photographed, rendered) if source]
        if photographed:
            self.layers.append([layer_of(*pair) for pair in photographed])
        # where nothing says which object is meant, the ground must not show another one
        self.empty = [self.photos[i] for i, _ in known if area[i] <= NOTHING] or self.photos
        self.sizes = tuple(sizes)

    def batch(self, count: int, g: Generator) -> MattingBatch:
        """`count` samples of one of the sizes."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=g)))
        size = int(rng.choice(self.sizes))
        samples = [self.sample(size, rng) for _ in range(count)]
        stacked = torch.from_numpy(np.stack(samples))
        image, alpha = stacked[..., :4], stacked[..., 4:]
        return MattingBatch(*(rearrange(x, "b H W c -> b c H W").contiguous() for x in (image, alpha)))

    def sample(self, size: int, rng: Rng) -> np.ndarray:
        """[size,size,5]: RGB in [-1,1], the box, alpha."""
        whole = rng.random() < WHOLE
        if rng.random() < SCENES and self.scenes:
            picture, alpha = self._scene(rng)
        else:
            picture, alpha = self._composed(whole, rng)
        return framed(degraded(picture, rng), alpha, whole, size, rng)

    def _scene(self, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        source = self.scenes[rng.integers(len(self.scenes))]
        truth, mask = source[rng.integers(len(source))]
        picture, alpha = truth.astype(np.float32) / 255, mask.astype(np.float32).squeeze(-1) / 255
        if rng.random() < 0.5:
            picture, alpha = picture[:, ::-1], alpha[:, ::-1]
        if rng.random() < RECOLOURED:
            picture = picture[..., rng.permutation(3)]
        rows, columns = (np.flatnonzero((alpha > 0.5).any(side)) for side in (1, 0))
        if not len(rows):
            return picture, alpha
        free = rng.uniform(0.1, 1.2, 4) * max(np.ptp(rows), np.ptp(columns))
        top, left = max(0, int(rows[0] - free[0])), max(0, int(columns[0] - free[1]))
        window = slice(top, int(rows[-1] + free[2]) + 2), slice(left, int(columns[-1] + free[3]) + 2)
        return picture[window], alpha[window]

    def _composed(self, whole: bool, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        longer, aspect = rng.uniform(*CANVAS), rng.uniform(0.65, 1.5)
        height, width = (round(longer * min(1, x)) for x in (1 / aspect, aspect))
        picture = self._ground(self.empty if whole else self.photos, height, width, rng)
        low, high = (0.35, 0.9) if whole else (0.25, 0.75)
        length = rng.uniform(low, high) * min(height, width)
        for _ in range(rng.choice((0, 1, 2), p=(0.65, 0.25, 0.1))):
            other = self._object(picture, length * rng.uniform(0.2, 0.4 if whole else 1.2), rng)
            picture = _over(other, picture)
        layer = self._object(picture, length, rng)
        if rng.random() < 0.7:
            picture = picture * (1 - shadow_layer(layer[..., 3], rng))[..., None]
        picture, alpha = _over(layer, picture), layer[..., 3]
        if rng.random() < OCCLUDED and not whole:
            front = self._object(picture, length * 0.5, rng)
            picture, alpha = _over(front, picture), alpha * (1 - front[..., 3])
        return picture, alpha

    def _ground(self, photos: list[np.ndarray], height: int, width: int, rng: Rng) -> np.ndarray:
        picture = self._texture(photos, height, width, rng)
        if rng.random() < 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 4))
        return tinted(picture, rng, 0.2)

    def _texture(self, photos: list[np.ndarray], height: int, width: int, rng: Rng) -> np.ndarray:
        """A part of one of the photos, scaled to [height,width,3]."""
        photo = photos[rng.integers(len(photos))]
        scale = rng.uniform(0.25, 1) * min(photo.shape[0] / height, photo.shape[1] / width)
        h, w = max(8, int(height * scale)), max(8, int(width * scale))
        top, left = rng.integers(photo.shape[0] - h + 1), rng.integers(photo.shape[1] - w + 1)
        part = photo[top : top + h, left : left + w]
        part = part[:, ::-1] if rng.random() < 0.5 else part
        return _resized(np.ascontiguousarray(part), width, height).astype(np.float32) / 255

    def _object(self, picture: np.ndarray, length: float, rng: Rng) -> np.ndarray:
        """A random layer of the picture's size with an object of this length somewhere in it."""
        source = self.layers[rng.integers(len(self.layers))]
        layer = source[rng.integers(len(source))].astype(np.float32) / 255
        layer = self._new_look(layer, rng)
        layer[..., :3] *= layer[..., 3:]
        layer = turned_and_placed(layer, picture.shape[:2], length, rng)
        if rng.random() < LIKE_GROUND:
            layer = like_ground(layer, picture, rng.uniform(0.4, 0.9))
        if rng.random() < 0.5:
            layer = layer.copy()
            layer[..., :3] *= gradient(picture.shape[:2], rng)[..., None]
        if rng.random() < 0.7:
            layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.2, 1.1))
        return layer

    def _new_look(self, layer: np.ndarray, rng: Rng) -> np.ndarray:
        colour, alpha = layer[..., :3], layer[..., 3:]
        if rng.random() < RECOLOURED:
            colour = colour[..., rng.permutation(3)]
        if rng.random() < TEXTURED:  # the renders and drawings are smoother than what is photographed
            texture = self._texture(self.photos, layer.shape[0], layer.shape[1], rng)
            share = rng.uniform(0.3, 1)
            if rng.random() < 0.6:  # the object's own shading stays
                grey = colour.mean(-1, keepdims=True)
                texture = texture * (grey + 0.1) / ((grey * alpha).sum() / max(alpha.sum(), 1) + 0.1)
            colour = colour + share * (texture - colour)
        if rng.random() < EXTREME:  # nearly black, nearly white, nearly grey
            colour = rng.choice((0.0, 0.92, rng.random())) + colour * rng.uniform(0.05, 0.3)
        return np.concatenate([tinted(np.clip(colour, 0, 1), rng, 0.25), alpha], -1)


def _pixels(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(rearrange(image, "c H W -> H W c").numpy())


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = pixels.shape[0] * pixels.shape[1] > width * height
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def layer_of(photo: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """Photo [H,W,3] and silhouette [H,W,1] => layer [H,W,4], all uint8; its edge keeps none of the ground."""
    inner = (2 * silhouette.astype(np.int16) - 255).clip(0, 255).astype(np.uint8)
    return np.concatenate([photo, inner], -1)


def _over(layer: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return layer[..., :3] + picture * (1 - layer[..., 3:])


def tinted(colour: np.ndarray, rng: Rng, amount: float) -> np.ndarray:
    """Random gain of each channel, contrast and saturation of [H,W,3] in [0,1]."""
    gain = rng.uniform(1 - amount, 1 + amount) * (1 + rng.uniform(-amount, amount, 3) / 2)
    saturation, contrast = rng.uniform(1 - 2 * amount, 1 + amount), rng.uniform(1 - amount, 1 + amount)
    mixed = saturation * np.eye(3) + (1 - saturation) / 3  # one matrix does all of it
    matrix = gain[:, None] * np.column_stack([contrast * mixed, np.full(3, 0.5 - 0.5 * contrast)])
    return np.clip(cv2.transform(np.ascontiguousarray(colour, np.float32), matrix), 0, 1)


def turned_and_placed(layer: np.ndarray, size: tuple[int, int], length: float, rng: Rng) -> np.ndarray:
    """A layer scaled to a length, rotated, stretched, mirrored, put somewhere in a transparent [H,W,4]."""
    rows, columns = (np.flatnonzero((layer[..., 3] > 0.05).any(side)) for side in (1, 0))
    if len(rows) < 2 or len(columns) < 2:
        return np.zeros((*size, 4), np.float32)
    layer = layer[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(length / max(layer.shape[:2]), 1.5)
    h, w = (max(8, round(side * scale)) for side in layer.shape[:2])
    layer = _resized(layer, w, h)
    angle = rng.uniform(-25, 25) if rng.random() < 0.6 else 0.0
    angle += 90.0 * float(rng.integers(4)) if rng.random() < 0.1 else 0.0
    stretch, mirror = np.exp(rng.uniform(-0.2, 0.2)), rng.choice((-1, 1))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror * stretch, 1 / stretch])
    reach = (np.abs(turn) @ np.array([w, h])) / 2
    space = np.maximum(np.array(size[::-1]) / 2 - reach, 0)
    if rng.random() < 0.15:
        space = space + reach * 0.3  # the border may cut it
    centre = np.array(size[::-1]) / 2 + rng.uniform(-1, 1, 2) * space
    shift = centre - turn @ np.array([w / 2, h / 2])
    return cv2.warpAffine(layer, np.column_stack([turn, shift]), size[::-1], flags=cv2.INTER_LINEAR)


def like_ground(layer: np.ndarray, picture: np.ndarray, strength: float) -> np.ndarray:
    """Pull an object's mean colour and contrast towards those of the ground around it."""
    alpha = layer[..., 3:]
    around = cv2.dilate(alpha[..., 0], np.ones((9, 9))) > 0.5
    inside = alpha[..., 0] > 0.5
    if not inside.any():
        return layer
    own, near = layer[inside][::5, :3], picture[around][::5]  # some of the pixels are enough
    mean, spread = own.mean(0), own.std(0).mean() + 0.02
    ground, contrast = near.mean(0), near.std(0).mean() + 0.03
    scale = 1 + (min(contrast / spread, 1.5) - 1) * strength
    colour = (layer[..., :3] - mean * alpha) * scale + (mean + (ground - mean) * strength) * alpha
    return np.concatenate([np.clip(colour, 0, alpha), alpha], -1).astype(np.float32)


def gradient(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Light that falls off from one side to the other, [H,W], 0.4 .. 1.3."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j].astype(np.float32)
    angle, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    return np.clip(1 + steep * (x * np.cos(angle) + y * np.sin(angle)), 0.4, 1.3).astype(np.float32)


def shadow_layer(alpha: np.ndarray, rng: Rng) -> np.ndarray:
    """A soft shadow [H,W] in [0,1] of a silhouette: flattened below its lower edge, or cast to a side."""
    rows, columns = (np.flatnonzero((alpha > 0.3).any(side)) for side in (1, 0))
    if not len(rows):
        return np.zeros_like(alpha)
    bottom, middle = float(rows[-1]), float(columns.mean())
    flat, shear = rng.uniform(0.08, 0.5), rng.uniform(-1.2, 1.2)
    drop = rng.uniform(-0.02, 0.08) * np.ptp(rows)
    # row bottom - d of the silhouette => row bottom - flat * d, shifted by shear * flat * d
    matrix = np.array([[1.0, -shear * flat, shear * flat * bottom], [0.0, flat, bottom * (1 - flat) + drop]])
    wider = rng.uniform(0.9, 1.25)
    matrix[0] *= wider
    matrix[0, 2] += middle * (1 - wider)
    cast = cv2.warpAffine(alpha, matrix, alpha.shape[::-1])
    soft = cv2.GaussianBlur(cast, (0, 0), max(0.5, rng.uniform(0.01, 0.08) * np.ptp(rows)))
    return soft * rng.uniform(0.2, 0.8)


def degraded(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Light, blur, noise and JPEG of a whole picture, as cameras make them; [H,W,3] in [0,1]."""
    picture = np.ascontiguousarray(picture, np.float32)
    if rng.random() < 0.5:
        picture = tinted(picture * gradient(picture.shape[:2], rng)[..., None], rng, 0.2)
    if rng.random() < 0.2:
        picture = cv2.pow(np.clip(picture, 0, 1), rng.uniform(0.5, 2.2))
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.4:
        noise = rng.standard_normal(picture.shape, np.float32)
        picture = picture + noise * np.float32(rng.uniform(0, 0.04))
    pixels = (picture * 255 + 0.5).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    return pixels.astype(np.float32) / 255


def framed(picture: np.ndarray, alpha: np.ndarray, whole: bool, size: int, rng: Rng) -> np.ndarray:
    """Box and surroundings of the object => [size,size,5]; `whole`: no crop, and the box is everywhere."""
    height, width = alpha.shape
    rows, columns = (np.flatnonzero((alpha > 0.5).any(side)) for side in (1, 0))
    box = window = (0, 0, width, height)
    if len(rows) and not whole:
        sides = np.array([np.ptp(columns), np.ptp(rows)] * 2)
        out = rng.uniform(0, rng.choice((0.04, LOOSE)), 4) - (rng.random(4) < 0.25) * rng.uniform(0, CUTS, 4)
        out = out * sides * (-1, -1, 1, 1)
        tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        box = _clipped(tight + out, width, height)
        around = rng.uniform(0.12, 0.35) * max(box[2] - box[0], box[3] - box[1])
        window = _clipped(np.array(box) + around * np.array([-1, -1, 1, 1]), width, height)
    left, top, right, bottom = window
    scale = np.array([size / (right - left), size / (bottom - top)] * 2)
    x0, y0, x1, y1 = np.round((np.array(box) - (left, top, left, top)) * scale).astype(int)
    inside = np.zeros((size, size, 1), np.float32)
    inside[y0:y1, x0:x1] = 1
    both = np.concatenate([picture, alpha[..., None]], -1)[top:bottom, left:right].astype(np.float32)
    both = _resized(both, size, size)
    return np.concatenate([both[..., :3] * 2 - 1, inside, both[..., 3:].clip(0, 1)], -1)


def _clipped(box: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in np.round(box))
    x0, y0 = min(max(0, x0), width - 2), min(max(0, y0), height - 2)
    return x0, y0, max(x0 + 2, min(x1, width)), max(y0 + 2, min(y1, height))
