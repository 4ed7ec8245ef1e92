"""One base, one object after the other: each as if it were alone, and the base as it was in the end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.compositing.composite_fill import CompositeObject, CompositeSettings, make_composite_fill
from ldm.compositing.object_cut_outs import CutOutImages, white_balanced
from ldm.config.build import open_session
from ldm.config.schema import Config, load_config
from ldm.data.image import from_bytes, to_bytes
from ldm.data.object_crops import NEAREST, ObjectImages
from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertRequest
from ldm.insertion.roi import Roi, plan_rois
from ldm.insertion.session import Session
from ldm.merge.merge import merge, merge_input
from ldm.merge.merged_file import open_merged, save_merged
from ldm.models.base import Base, base_fingerprint, base_state
from ldm.models.runtime import Runtime, prepare
from ldm.objects.baked import bake, bake_delta
from ldm.objects.baked import save as save_baked
from ldm.objects.delta import apply, extract, load, save, trained_names
from ldm.objects.few_shot import FewShotLayer
from ldm.objects.object_context import reference_of
from ldm.objects.object_file import ObjectMetadata
from ldm.objects.paper_file import write_paper_file
from ldm.scenes.regional_context import in_regions
from ldm.speed.onednn_packing import pack_weights
from ldm.tiling.second_pass import TiledSecondPass
from tests.fixtures.objects import learnt
from tests.fixtures.small import SMALL_IMAGES, object_folder, small_base, state_of, written

SIDES = ("object", "base")


def write_object(path: Path, base: Base, seed: int, fingerprint: str = "") -> Path:
    """An object that moves every trained weight by noise, with a reference of its own."""
    generator = torch.Generator().manual_seed(seed)
    state = base_state(base)
    tuned = {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in state.items()}
    about = ObjectMetadata(fingerprint or base_fingerprint(base), "small", freeze_model="crossattn")
    reference = torch.randint(0, 256, (3, 28, 28), generator=generator).to(torch.uint8)
    save(extract(state, tuned, trained_names(base, "crossattn"), about, reference=reference), path)
    return path


@pytest.fixture
def session() -> Session:
    return session_of(small_base())


def session_of(base: Base, composited: bool = False, **sampling: Any) -> Session:
    """Two steps, pasted hard; `composited`: the base is shown cut-outs."""
    fill = {"make_fill": make_composite_fill(CompositeSettings())} if composited else {}
    images: ObjectImages = CutOutImages(28) if composited else SMALL_IMAGES
    options = InsertOptions(Sampling("ddim", 2, 2.0, **sampling), BLENDS["paste"])
    return Session(base, options, images=images, loaders={"merged": open_merged}, **fill)


def sample_by(session: Session, **sampling: Any) -> None:
    """From now on; the object is put down."""
    session.unload_object()
    session.options = replace(session.options, sampling=Sampling("ddim", 2, 2.0, **sampling))


def cut_outs(session: Session, source: ObjectSource) -> torch.Tensor:
    """What the subject is shown by, as bytes [k,4,P,P]."""
    fill = session.ready(source).fill
    assert isinstance(fill, CompositeObject)
    return to_bytes(fill.cut_outs)


def config_of(folder: Path) -> Config:
    """Of the small base, written to a file, as `session_of` uses it."""
    how = ["sample.sampler=ddim", "sample.steps=2", "sample.guidance_scale=2.0", "insert.blend=paste"]
    return load_config(written(folder)[0], how)


def inserted(session: Session, source: ObjectSource) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    [[result]] = session.insert(Picture(pixels), [InsertRequest(mask, plan_rois(mask), [3], source)])
    return result.picture.pixels


def test_objects_do_not_leave_traces(session: Session, tmp_path: Path) -> None:
    before = state_of(session.base)
    a, b = (ObjectSource(write_object(tmp_path / f"{i}.safetensors", session.base, i)) for i in (1, 2))
    alone = inserted(session, a)
    assert (inserted(session, b) != alone).any()
    assert (inserted(session, ObjectSource(a.object, object_scale=0.3)) != alone).any()
    assert np.array_equal(inserted(session, a), alone)
    session.unload_object()
    after = session.base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_one_view_is_drawn_and_one_that_is_not_there_leaves_no_trace(
    session: Session, tmp_path: Path
) -> None:
    before = state_of(session.base)
    delta = replace(learnt(session.base, 1), reference=torch.full((3, 28, 28), 90, dtype=torch.uint8))
    save(delta, tmp_path / "o.safetensors")
    made = bake_delta(session.base, delta, session.images, view=2)
    save_baked(made, tmp_path / "baked.safetensors", torch.float32)
    source, pictures = ObjectSource(tmp_path / "o.safetensors"), []
    for view in (0, 1, 2):
        sample_by(session, reference_view=view)
        pictures.append(inserted(session, source).astype(int))
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()
    again = inserted(session, ObjectSource(tmp_path / "baked.safetensors")).astype(int)
    assert np.abs(again - pictures[2]).max() <= 1
    sample_by(session, reference_view=7)
    with pytest.raises(ValueError, match=r"view 7: this object has \d few-shot tokens; give 1 to \d"):
        session.load_object(source)
    with pytest.raises(ValueError, match="baked with reference_view 2, asked for is 7"):
        session.load_object(ObjectSource(tmp_path / "baked.safetensors"))
    after = session.base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_view_is_also_the_picture_that_a_base_of_composites_is_shown(tmp_path: Path) -> None:
    session = session_of(small_base(), composited=True)
    views = torch.randint(1, 256, (4, 4, 28, 28)).to(torch.uint8)
    views, own = views[:3], views[3]
    delta = replace(learnt(session.base, 1, tokens=3), views=views, reference=own)
    save(delta, tmp_path / "o.safetensors")
    for view in (0, 1, 3):
        sample_by(session, reference_view=view)
        save_baked(bake_delta(session.base, delta, session.images, view=view), tmp_path / "b.safetensors")
        picture = views[view - 1] if view else own
        lit = white_balanced(from_bytes(picture[None]), from_bytes(views))
        for file in ("o", "b"):
            shown = cut_outs(session, ObjectSource(tmp_path / f"{file}.safetensors"))
            assert torch.equal(shown, to_bytes(lit))
    sample_by(session, reference_view=NEAREST)
    save(replace(delta, reference=views[1]), tmp_path / "o.safetensors")
    lit = white_balanced(from_bytes(views[1:2]), from_bytes(views))
    for _ in range(2):
        assert torch.equal(cut_outs(session, ObjectSource(tmp_path / "o.safetensors")), to_bytes(lit))
    given = tmp_path / "red.png"
    Image.new("RGB", (28, 28), (255, 0, 0)).save(given)
    shown = cut_outs(session, ObjectSource(tmp_path / "o.safetensors", given))
    assert from_bytes(shown)[0, 0].max() > 0.99, "a reference that is given wins"


@pytest.mark.parametrize("composited", [False, True])
def test_every_kind_of_object_file_brings_its_cut_out(tmp_path: Path, composited: bool) -> None:
    """For a base of composites only, and it makes a difference to what is drawn."""
    base = small_base()
    session, plain = session_of(base, composited), session_of(base)
    delta, files = learnt(base, 1), [tmp_path / f"{i}.safetensors" for i in range(3)]
    save(delta, files[0])
    save_baked(bake_delta(base, delta, session.images), files[1], torch.float32)
    save_merged(merge([merge_input(base, delta, "one", session.images)])[0], files[2])
    assert delta.reference is not None
    for file in files if composited else []:
        assert torch.equal(cut_outs(session, ObjectSource(file))[0, :3], delta.reference)
    pictures = [inserted(session, ObjectSource(file)).astype(int) for file in files]
    assert all(np.abs(picture - pictures[0]).max() <= 1 for picture in pictures)
    session.unload_object()
    assert (inserted(plain, ObjectSource(files[0])) != pictures[0]).any() == composited


def test_the_reference_is_the_one_given_or_the_objects_own(session: Session, tmp_path: Path) -> None:
    file = write_object(tmp_path / "o.safetensors", session.base, 1)
    Image.new("RGB", (28, 28), (255, 0, 0)).save(tmp_path / "red.png")
    red = torch.tensor([1.0, -1.0, -1.0])
    for source in (ObjectSource(file, tmp_path / "red.png"), ObjectSource(reference=tmp_path / "red.png")):
        assert torch.allclose(session.reference(source)[0, :, 14, 14], red)
    own = session.reference(ObjectSource(file))
    assert own.shape == (1, 3, 28, 28) and not torch.allclose(own[0, :, 14, 14], red)


def test_files_that_changed_are_read_again(session: Session, tmp_path: Path) -> None:
    reference, mask = tmp_path / "red.png", tmp_path / "red_mask.png"
    Image.new("RGB", (28, 28), (255, 0, 0)).save(reference)
    before = session.reference(ObjectSource(reference=reference))
    Image.new("RGB", (28, 28), (0, 0, 255)).save(reference)
    after = session.reference(ObjectSource(reference=reference))
    assert not torch.equal(before, after) and after[0, 2].max() > 0.9
    state = ObjectSource(reference=reference).state()
    Image.new("L", (28, 28), 255).save(mask)
    assert ObjectSource(reference=reference).state() != state, "a silhouette beside it"
    ready = session.ready(ObjectSource(reference=reference))
    assert session.ready(ObjectSource(reference=reference)) is ready


def test_objects_together_are_each_in_its_own_mask(session: Session, tmp_path: Path) -> None:
    """In one pass, also refined in tiles; whoever is exchanged changes the picture where it is."""
    files = [write_object(tmp_path / f"{i}.safetensors", session.base, i) for i in (1, 2, 3)]
    a, b, c = (ObjectSource(file) for file in files)
    left, right = (np.zeros((60, 60), bool) for _ in range(2))
    left[10:50, 8:26], right[10:50, 34:52] = True, True
    background = Picture(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))

    def both(one: ObjectSource, other: ObjectSource) -> np.ndarray:
        hole = left | right
        masks = torch.stack([torch.from_numpy(mask).float() for mask in (left, right)])
        joint = in_regions([session.ready(one), session.ready(other)], masks)
        request = InsertRequest(hole, [Roi(0, 0, 60, 60)], [3])
        [[result]] = session.insert(background, [request], [joint])
        pixels = result.picture.pixels
        assert np.array_equal(pixels[~hole], background.pixels[~hole])
        return pixels.astype(float)

    def apart(x: np.ndarray, y: np.ndarray, where: np.ndarray) -> float:
        return float(np.abs(x - y)[where].mean())

    for strength in (0, 0.5):
        second_pass = TiledSecondPass(strength) if strength else None
        session.options = replace(session.options, second_pass=second_pass)
        ab, cb, ac = both(a, b), both(c, b), both(a, c)
        assert apart(ab, cb, right) < 0.5 * apart(ab, cb, left)
        assert apart(ab, ac, left) < 0.5 * apart(ab, ac, right)


def test_after_an_object_that_does_not_fit_the_next_one_does(session: Session, tmp_path: Path) -> None:
    good = ObjectSource(write_object(tmp_path / "good.safetensors", session.base, 1))
    bad = ObjectSource(write_object(tmp_path / "bad.safetensors", session.base, 1, fingerprint="f" * 16))
    alone = inserted(session, good)
    with pytest.raises(ValueError, match="is for the base ffff"):
        session.load_object(bad)
    assert np.array_equal(inserted(session, good), alone)


@pytest.mark.parametrize("kind", ["own", "merged"])
@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyboardInterrupt()])
def test_an_object_whose_opening_is_interrupted_leaves_no_trace(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException
) -> None:
    base, file = session.base, tmp_path / "o.safetensors"
    if kind == "own":
        write_object(file, base, 1)
    else:
        save_merged(merge([merge_input(base, learnt(base, 1), "one", SMALL_IMAGES)])[0], file)
    before = state_of(base)

    def interrupted(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        for name in ("ldm.insertion.session.object_contexts", "ldm.merge.merged_file.merged_contexts"):
            patched.setattr(name, interrupted)
        with pytest.raises(type(error)):
            session.load_object(ObjectSource(file))
    after = base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    session.load_object(ObjectSource(file))


def test_guidance_starts_where_it_is_told(tmp_path: Path) -> None:
    """From the object's own unconditional branch, or from that of the base as it is without any object."""
    base = small_base()
    untouched = base.null().layers
    own, other = (session_of(base, guidance_from=x) for x in SIDES)
    cup = merge_input(base, learnt(base, 3), "cup", SMALL_IMAGES)
    save_merged(merge([cup])[0], tmp_path / "cup.safetensors")
    write_object(tmp_path / "o.safetensors", base, 1)
    for source in (ObjectSource(tmp_path / "o.safetensors"), ObjectSource(tmp_path / "cup.safetensors")):
        tuned = own.ready(source).contexts
        own.unload_object()
        ready = other.ready(source)
        for name, layer in ready.contexts.unconditional.layers.items():
            assert all(torch.equal(a, b) for a, b in zip(layer, untouched[name], strict=True))
        moved = (tuned.unconditional.layers[name].bias - untouched[name].bias for name in untouched)
        assert all(x.abs().max() > 1e-3 for x in moved)
        for name, layer in tuned.conditional.layers.items():
            assert torch.equal(layer.bias, ready.contexts.conditional.layers[name].bias)
        other.unload_object()
        different = inserted(own, source)
        own.unload_object()
        assert (inserted(other, source) != different).any()
        other.unload_object()


@pytest.mark.parametrize("mode", ["crossattn", "crossattn-kv"])
def test_a_baked_object_holds_the_branch_that_guidance_starts_from(tmp_path: Path, mode: str) -> None:
    base = small_base()
    session = session_of(base, guidance_from="base")
    delta = replace(learnt(base, 1), reference=torch.full((3, 28, 28), 90, dtype=torch.uint8))
    if mode == "crossattn":
        delta = load(write_object(tmp_path / "a.safetensors", base, 1))
    save(delta, tmp_path / "o.safetensors")
    made = bake_delta(base, delta, SMALL_IMAGES, guidance_from="base")
    save_baked(made, tmp_path / "baked.safetensors", torch.float32)
    expected = inserted(session, ObjectSource(tmp_path / "o.safetensors")).astype(int)
    session.unload_object()
    assert np.abs(inserted(session, ObjectSource(tmp_path / "baked.safetensors")) - expected).max() <= 1
    sample_by(session)
    with pytest.raises(ValueError, match="baked with guidance_from base, asked for is object"):
        session.load_object(ObjectSource(tmp_path / "baked.safetensors"))


def test_a_baked_object_needs_no_conditioner_and_inserts_the_same(session: Session, tmp_path: Path) -> None:
    file = write_object(tmp_path / "o.safetensors", session.base, 1)
    delta = load(file)
    with apply(session.base, delta):
        save_baked(bake(session.base, delta.metadata, reference_of(delta)), tmp_path / "baked.safetensors")
    expected = inserted(session, ObjectSource(file)).astype(int)
    session.unload_object()
    source = ObjectSource(tmp_path / "baked.safetensors")
    opened = open_session(config_of(tmp_path / "small"), [source], "cpu")
    assert not isinstance(opened.base, Base)
    assert np.abs(inserted(opened, source) - expected).max() <= 1
    assert np.abs(inserted(session, source) - expected).max() <= 1, "a whole base takes it too"
    for wrong, said in (
        (replace(source, object_scale=0.5), "0.5"),
        (replace(source, reference=file), "takes no other"),
    ):
        with pytest.raises(ValueError, match=said):
            opened.load_object(wrong)


def test_one_object_that_is_not_baked_needs_the_whole_base(tmp_path: Path) -> None:
    sources = [ObjectSource(reference=tmp_path / "r.png"), ObjectSource(tmp_path / "gone.safetensors")]
    opened = open_session(config_of(tmp_path / "small"), sources, "cpu")
    assert isinstance(opened.base, Base)


def test_an_object_of_a_merged_file_is_picked_by_name(session: Session, tmp_path: Path) -> None:
    base = session.base
    members = [merge_input(base, learnt(base, i), name, SMALL_IMAGES) for i, name in ((1, "cup"), (2, "bee"))]
    save_merged(merge(members)[0], tmp_path / "both.safetensors")
    save(learnt(base, 1), tmp_path / "cup.safetensors")
    alone = inserted(session, ObjectSource(tmp_path / "cup.safetensors")).astype(int)
    cup, bee = (
        inserted(session, ObjectSource(tmp_path / "both.safetensors", pick=p)) for p in ("cup", "bee")
    )
    assert np.abs(cup - alone).max() <= 1 and np.abs(bee.astype(int) - cup).max() > 1
    with pytest.raises(ValueError, match=r"holds bee, cup; choose one: --pick NAME"):
        session.load_object(ObjectSource(tmp_path / "both.safetensors"))
    with pytest.raises(ValueError, match="no object hat"):
        session.load_object(ObjectSource(tmp_path / "both.safetensors", pick="hat"))


def test_a_prepared_base_takes_on_every_kind_of_object_one_after_the_other(
    session: Session, tmp_path: Path
) -> None:
    """Also behind the first step, when plain weights are gone; in any order."""
    base, folder = session.base, object_folder(tmp_path / "cup")
    assert isinstance(base, Base)
    files = {name: tmp_path / name for name in ("a.safetensors", "both.safetensors", "baked.safetensors")}
    files |= {name: tmp_path / name for name in ("b.ckpt", "c.ckpt")}
    save(learnt(base, 1), files["a.safetensors"])
    members = [merge_input(base, learnt(base, i), f"{i}", SMALL_IMAGES) for i in (1, 2)]
    save_merged(merge(members)[0], files["both.safetensors"])
    save_baked(bake_delta(base, learnt(base, 3), SMALL_IMAGES), files["baked.safetensors"])
    for i, name in ((4, "b.ckpt"), (5, "c.ckpt")):
        about = replace(learnt(base, i).metadata, few_shot="none", few_shot_count=0)
        write_paper_file(
            files[name], base, replace(learnt(base, i), metadata=about, tokens=None), FewShotLayer()
        )
    paper = torch.load(files["c.ckpt"], weights_only=True)
    del paper["base"]  # the paper's own files name none
    torch.save(paper, files["c.ckpt"])
    sources = [
        ObjectSource(file, pick="1" if name == "both.safetensors" else None, pictures=folder)
        for name, file in files.items()
    ]
    plain = [inserted(session, source) for source in sources]
    session.unload_object()
    prepared = session_of(base)
    prepare(base, Runtime(pack=pack_weights))
    for source, expected in [*zip(sources, plain, strict=True)] * 2:
        apart = np.abs(inserted(prepared, source).astype(int) - expected)
        assert apart.max() <= 1, source.object


def test_different_objects_in_one_batch_are_what_each_is_alone(session: Session, tmp_path: Path) -> None:
    """Of other weights, numbers of tokens, sizes of mask, numbers of regions and of seeds."""
    Image.new("RGB", (28, 28), (255, 0, 0)).save(tmp_path / "red.png")
    first, second = (write_object(tmp_path / f"{i}.safetensors", session.base, i) for i in (1, 2))
    few = tmp_path / "few.safetensors"
    save(learnt(session.base, 3), few)
    sources = [
        ObjectSource(first),
        ObjectSource(few),
        ObjectSource(reference=tmp_path / "red.png"),
        ObjectSource(second),
    ]
    boxes = [[(4, 4, 24, 20)], [(40, 6, 70, 30), (150, 60, 170, 90)], [(4, 50, 16, 90)], [(90, 10, 110, 40)]]
    background = Picture(np.random.default_rng(0).integers(0, 256, (100, 180, 3), dtype=np.uint8))
    requests = []
    for i, source in enumerate(sources):
        mask = np.zeros(background.size, bool)
        for x0, y0, x1, y1 in boxes[i]:
            mask[y0:y1, x0:x1] = True
        seeds = [5, 6] if i == 1 else [5]
        requests.append(InsertRequest(mask, plan_rois(mask), seeds, source))
    assert [len(request.rois) for request in requests] == [1, 2, 1, 1]
    seen: list[int] = []
    session.base.unet.register_forward_pre_hook(lambda unet, inputs: seen.append(len(inputs[0])))
    together = session.insert(background, requests)
    assert seen == [2 * 5] * 2 + [2 * 2] * 2, "all first regions at once, then the second one's; two steps"
    for request, results in zip(requests, together, strict=True):
        [alone] = session.insert(background, [request])
        for one, other in zip(results, alone, strict=True):
            assert one.record["seed"] == other.record["seed"]
            apart = np.abs(one.picture.pixels.astype(int) - other.picture.pixels)
            assert apart.max() <= 1, "batches round otherwise"
            assert (one.picture.pixels != background.pixels).any(axis=2)[request.mask].mean() > 0.5
    assert not np.array_equal(together[1][0].picture.pixels, together[1][1].picture.pixels)
