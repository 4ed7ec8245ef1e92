"""Each score of one insertion against a computation written down here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ldm.batch.work_item import MaskedBackground
from ldm.evaluation.benchmark import load_benchmark
from ldm.evaluation.metrics import METRICS, OFFLINE, perceptual, scores_of, set_scores
from ldm.evaluation.networks import (
    FeatureNetworks,
    load_networks,
    object_view,
    paper_region,
    pbe_region,
    whole,
)
from ldm.evaluation.results import Insertion, real_pictures, references_in
from ldm.features.imagenet import ImageNetFeatures, likeness
from ldm.insertion.crop_paste import crop_region
from ldm.insertion.roi import box_of
from tests.evaluation.test_frechet import formula
from tests.fixtures.bench import MASK, OBJECT, drawn, write_bench
from tests.fixtures.networks import write_alexnet, write_clip, write_dino


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judge")


@pytest.fixture(scope="module")
def insertion(folder: Path) -> Insertion:
    """Scene s1 of the bench in miniature, filled with the wrong object and two pixels changed outside."""
    scene = write_bench(folder / "bench") / "scenes" / "s1"
    background = np.asarray(Image.open(scene / "background.png"))
    result = drawn(background, (38, 30, 62, 58), "brick")
    result[0, 0, 0] += 9
    result[79, 95, 2] -= 3
    Image.fromarray(result).save(folder / "s1.png")
    [site] = load_benchmark(folder / "bench", sites=["s1"]).sites
    references = references_in(folder / "bench" / "objects" / "apple")
    return Insertion(site, references, folder / "s1.png", facts={"seconds": 1.5})


@pytest.fixture(scope="module")
def networks(folder: Path) -> FeatureNetworks:
    return load_networks(
        [*OFFLINE, "clip", "dino", "lpips", "clip-fid"], clip=write_clip(folder / "clip"),
        dino=write_dino(folder / "dino"), alexnet=write_alexnet(folder / "alex.pth"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scores(insertion: Insertion, networks: FeatureNetworks) -> dict[str, float]:
    return scores_of(insertion, [*OFFLINE, "clip", "dino", "lpips"], networks)


def test_fidelity_and_background_are_those_of_plain_arithmetic(
    insertion: Insertion, scores: dict[str, float]
) -> None:
    result, images = insertion.read()
    assert images.truth is not None and images.object_mask is not None
    for name, mask in (("object", images.object_mask), ("region", images.mask)):
        difference = (result.pixels.astype(float) - images.truth.pixels)[mask]
        expected = 20 * np.log10(255 / np.sqrt((difference**2).mean()))
        assert scores[f"v2/psnr_{name}"] == pytest.approx(expected, abs=1e-3)
    x0, y0, x1, y1 = OBJECT
    a, b = (
        torch.from_numpy(p.pixels[y0:y1, x0:x1].astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
        for p in (result, images.truth)
    )
    assert scores["v2/identity"] == pytest.approx(likeness(ImageNetFeatures(), a, b), abs=1e-4)
    assert scores["v2/outside"] == 9 and scores["v2/seconds"] == 1.5
    x0, y0, x1, y1 = MASK
    assert scores["v2/outside_mean"] == pytest.approx(12 / 3 / (80 * 96 - (x1 - x0) * (y1 - y0)))


def test_the_truth_scores_best_and_the_background_is_not_the_object(
    insertion: Insertion, networks: FeatureNetworks
) -> None:
    folder = insertion.site.masked.background.parent
    best, nothing = (
        scores_of(replace(insertion, result=folder / f"{name}.png"), OFFLINE, networks)
        for name in ("truth", "background")
    )
    assert best["v2/identity"] == pytest.approx(1, abs=1e-4)
    assert best["v2/psnr_object"] == best["v2/psnr_region"] == 100
    assert best["v2/ssim_object"] == best["v2/ssim_region"] == pytest.approx(1)
    assert best["v2/outside"] == nothing["v2/outside"] == 0
    assert nothing["v2/identity"] < 0.9 and nothing["v2/psnr_object"] < nothing["v2/psnr_region"] < 30


def test_identity_is_to_every_view(
    insertion: Insertion, networks: FeatureNetworks, scores: dict[str, float]
) -> None:
    (result, _), network = insertion.read(), ImageNetFeatures()
    x0, y0, x1, y1 = MASK
    views = [np.asarray(Image.open(view.image)) for view in insertion.references.views]
    boxes = [[int(x) for x in view.boxes[0]] for view in insertion.references.views]
    crops = [pixels[b[1] : b[3], b[0] : b[2]] for pixels, b in zip(views, boxes, strict=True)]
    pooled = [network.pooled(squared(x)) for x in [result.pixels[y0:y1, x0:x1], *crops]]
    cosines = [float(F.cosine_similarity(pooled[0], view)) for view in pooled[1:]]
    assert len(cosines) == 2
    assert scores["v2/identity_mean"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert scores["v2/identity_max"] == pytest.approx(max(cosines), abs=1e-4)
    right = replace(insertion, result=insertion.site.truth)  # type: ignore[arg-type]
    better = scores_of(right, ["identity"], networks)
    assert better["v2/identity_mean"] > scores["v2/identity_mean"] + 0.03
    assert better["v2/identity"] == pytest.approx(1, abs=1e-5)


def squared(pixels: np.ndarray) -> torch.Tensor:
    """On a square of ImageNet's mean colour, 224 px."""
    side = max(pixels.shape[:2])
    ground = np.ones((side, side, 3)) * np.array([0.485, 0.456, 0.406])
    top, left = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    ground[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels / 255
    image = torch.from_numpy(ground).float().permute(2, 0, 1)[None] * 2 - 1
    large = F.interpolate(image, (224, 224), mode="bicubic", antialias=True)
    return large.clamp(image.min(), image.max())


def test_likeness_is_the_cosine_of_each_protocols_crops(
    insertion: Insertion, networks: FeatureNetworks, scores: dict[str, float]
) -> None:
    (result, images), references = insertion.read(), insertion.references
    for name in ("clip", "dino"):
        encoder = getattr(networks, name)
        known = torch.cat([encoder(object_view(encoder, image)) for image in references.images()])
        views = F.cosine_similarity(
            encoder(object_view(encoder, crop_region(result, box_of(images.mask)))), known
        )
        assert scores[f"v2/{name}_mean"] == pytest.approx(float(views.mean()), abs=1e-5)
        assert scores[f"v2/{name}_max"] == pytest.approx(float(views.max()), abs=1e-5)
        assert views.min() < views.max()
        region = paper_region(result, images.mask)
        assert region is not None
        a, b = encoder(region), encoder(whole(references.picture()))
        assert scores[f"paper/{name}"] == pytest.approx(100 * float(F.cosine_similarity(a, b)), abs=1e-3)
    region = pbe_region(result, images.mask)
    assert region is not None and networks.clip is not None
    a, b = networks.clip(region), networks.clip(whole(references.picture()))
    assert scores["pbe/clip"] == pytest.approx(100 * float(F.cosine_similarity(a, b)), abs=1e-3)
    assert len({round(scores[name], 4) for name in ("pbe/clip", "paper/clip")}) == 2


def test_feature_distances_are_means_over_the_region(
    insertion: Insertion, networks: FeatureNetworks, scores: dict[str, float]
) -> None:
    (result, images), network = insertion.read(), ImageNetFeatures()
    a, b = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    everywhere = np.ones((64, 64), bool)
    stages = zip(network.maps(a[None]), network.maps(b[None]), strict=True)
    expected = torch.stack([(x - y).square().sum(1).mean() for x, y in stages]).mean()
    assert perceptual(network, a, b, everywhere) == pytest.approx(float(expected), abs=1e-6)
    left = np.zeros((64, 64), bool)
    left[:, :32] = True
    half = torch.cat([a[:, :, :32], b[:, :, 32:]], dim=2)  # only the left half differs
    assert perceptual(network, half, b, left) > 3 * perceptual(network, half, b, ~left)

    x0, y0, x1, y1 = (16, 8, 80, 72)
    image, truth = (
        torch.from_numpy(p.pixels[y0:y1, x0:x1].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        for p in (result, images.truth)
        if p is not None
    )
    where = torch.from_numpy(images.mask[y0:y1, x0:x1])
    assert networks.lpips is not None
    assert scores["v2/lpips_region"] == pytest.approx(
        float(networks.lpips(image, truth)[where].mean()), rel=1e-4
    )
    assert 0 < scores["v2/perceptual_region"] < 1 and scores["v2/lpips_object"] > 0


def test_without_a_truth_there_is_no_fidelity(insertion: Insertion, networks: FeatureNetworks) -> None:
    blind = replace(insertion, site=replace(insertion.site, truth=None, object_mask=None), facts={})
    found = scores_of(blind, OFFLINE, networks)
    assert set(found) == {
        "v2/identity_mean", "v2/identity_max", "v2/seam", "v2/outside", "v2/outside_mean",
    }  # fmt: skip


def test_a_small_mask_is_no_obstacle(insertion: Insertion, networks: FeatureNetworks) -> None:
    small = replace(
        insertion,
        site=replace(
            insertion.site,
            masked=MaskedBackground(insertion.site.masked.background, box=(40, 40, 46, 45)),
            rois=(),
        ),
    )
    found = scores_of(small, [*OFFLINE, "lpips", "clip", "dino"], networks)
    assert all(np.isfinite(value) for value in found.values())


def test_clip_fid_is_the_formula_on_clips_features(
    folder: Path, insertion: Insertion, networks: FeatureNetworks
) -> None:
    scenes = folder / "bench" / "scenes"
    sites = [replace(site, truth=None) for site in load_benchmark(folder / "bench").sites]
    runs = [replace(insertion, site=site, result=scenes / site.name / "truth.png") for site in sites]
    real, told = real_pictures(runs, None)
    assert told == "backgrounds" and len(real) == 3
    assert real_pictures([insertion], None) == ([insertion.site.truth], "truths")
    found = set_scores(runs, real, ["clip-fid"], networks)
    assert networks.clip is not None
    # 80 x 96 px: 224 px the short side, then the middle of the long one
    features = [
        np.concatenate([networks.clip(prepared(path)).double().numpy() for path in paths])
        for paths in ([x.result for x in runs], real)
    ]
    assert found == {"paper/clip_fid": pytest.approx(formula(*features), rel=1e-3)}
    assert set_scores(runs, real, OFFLINE, networks) == {}


def prepared(path: Path) -> torch.Tensor:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil()(Image.open(path), return_tensors="pt")["pixel_values"]


def test_what_a_metric_needs_is_loaded_first_or_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(METRICS) == {*OFFLINE, "clip", "dino", "quality", "lpips", "clip-fid", "inception-fid"}
    assert load_networks(["background"]).names == {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "empty"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder / "empty"))
    for metric, flag in {
        "clip": "--clip", "clip-fid": "--clip", "dino": "--dino",
        "lpips": "--alexnet", "inception-fid": "--inception",
    }.items():  # fmt: skip
        with pytest.raises(FileNotFoundError, match=flag):
            load_networks([metric])
    with pytest.raises(FileNotFoundError, match="--quality_model"):
        load_networks(["quality"], clip=folder / "clip")


def test_pictures_that_do_not_fit_are_named(folder: Path, insertion: Insertion) -> None:
    Image.new("RGB", (50, 40)).save(folder / "small.png")
    with pytest.raises(ValueError, match=r"small\.png: 50 x 40 px .*background 96 x 80 px"):
        replace(insertion, result=folder / "small.png").read()
