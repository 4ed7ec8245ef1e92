"""Our LPIPS map is torchmetrics' own."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as theirs

from ldm.features.encoders import load_lpips
from tests.fixtures.networks import write_alexnet


def test_the_map_is_that_of_torchmetrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, name = load_lpips(write_alexnet(tmp_path / "alex.pth"))
    trunk = nn.Sequential(*net.features, nn.MaxPool2d(3, 2))  # as torchvision's, which is not here
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: trunk)
    expected = theirs._NoTrainLpips(net="alex", spatial=True)
    a, b = torch.rand(2, 1, 3, 70, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(net(a, b), expected(a, b)[0, 0], atol=1e-6)
    assert net(a, b).min() > 0 and torch.equal(net(a, a), torch.zeros(70, 96))
    assert name.startswith("alex.pth ")


def test_missing_weights_name_file_and_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"AlexNet \(LPIPS\).*alexnet-owt-7be5be79\.pth.*--alexnet"):
        load_lpips()
    write_alexnet(tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    assert load_lpips()[1].startswith("alexnet-owt")  # the library's own cache


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"AlexNet of LPIPS.*missing"):
        load_lpips(tmp_path / "a.pth")
