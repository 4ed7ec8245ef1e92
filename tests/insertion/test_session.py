"""One base, one object after the other: each as if it were alone, and the base as it was in the end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.picture import Picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.insert import Sampling
from ldm.insertion.roi import plan_rois
from ldm.insertion.session import Session
from ldm.insertion.subject import Subject
from ldm.models.base import Base, base_fingerprint, house_state
from ldm.objects.delta import extract, save, trained_names
from ldm.objects.file import About
from tests.fixtures.small import small_base, state_of


def write_object(path: Path, base: Base, seed: int, fingerprint: str = "") -> Path:
    """An object that moves every trained weight by noise, with a reference of its own."""
    generator = torch.Generator().manual_seed(seed)
    state = house_state(base)
    tuned = {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in state.items()}
    about = About(fingerprint or base_fingerprint(base), "small", freeze_model="crossattn")
    reference = torch.randint(0, 256, (3, 28, 28), generator=generator).to(torch.uint8)
    save(extract(state, tuned, trained_names(base, "crossattn"), about, reference=reference), path)
    return path


@pytest.fixture
def session() -> Session:
    return Session(small_base(), Sampling("ddim", 2, 2.0), BLENDS["paste"])


def inserted(session: Session, subject: Subject) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    return session.insert(subject, Picture(pixels), mask, plan_rois(mask), [3])[0].picture.pixels


def test_objects_do_not_leave_traces(session: Session, tmp_path: Path) -> None:
    before = state_of(session.base)
    a, b = (Subject(write_object(tmp_path / f"{i}.safetensors", session.base, i)) for i in (1, 2))
    alone = inserted(session, a)
    assert (inserted(session, b) != alone).any()
    assert (inserted(session, Subject(a.object, strength=0.3)) != alone).any()
    assert np.array_equal(inserted(session, a), alone)
    session.put_down()
    after = session.base.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_the_reference_is_the_one_given_or_the_objects_own(session: Session, tmp_path: Path) -> None:
    file = write_object(tmp_path / "o.safetensors", session.base, 1)
    Image.new("RGB", (28, 28), (255, 0, 0)).save(tmp_path / "red.png")
    red = torch.tensor([1.0, -1.0, -1.0])
    for subject in (Subject(file, tmp_path / "red.png"), Subject(reference=tmp_path / "red.png")):
        assert torch.allclose(session.reference(subject)[0, :, 14, 14], red)
    own = session.reference(Subject(file))
    assert own.shape == (1, 3, 28, 28) and not torch.allclose(own[0, :, 14, 14], red)


def test_after_an_object_that_does_not_fit_the_next_one_does(session: Session, tmp_path: Path) -> None:
    good = Subject(write_object(tmp_path / "good.safetensors", session.base, 1))
    bad = Subject(write_object(tmp_path / "bad.safetensors", session.base, 1, fingerprint="f" * 16))
    alone = inserted(session, good)
    with pytest.raises(ValueError, match="is for the base ffff"):
        session.take_on(bad)
    assert np.array_equal(inserted(session, good), alone)
