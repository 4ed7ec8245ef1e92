"""Our LPIPS map is torchmetrics' own, and the Inception network is called as torch-fidelity wants it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as theirs

from ldm.features import encoders as inception
from ldm.features.encoders import features_of, load_inception, load_lpips
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
    with pytest.raises(FileNotFoundError, match=r"Inception v3 \(FID\).*6726825d\.pth.*--inception"):
        load_inception()
    write_alexnet(tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    assert load_lpips()[1].startswith("alexnet-owt")  # the library's own cache


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"AlexNet of LPIPS.*missing"):
        load_lpips(tmp_path / "a.pth")


class Halves(nn.Module):
    """Stands in for torch-fidelity's network: the mean of each channel, of bytes only."""

    def __init__(self, name: str, features: list[str], weights: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.load(weights, weights_only=True)["scale"], requires_grad=False)
        assert features == ["2048"]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert x.dtype == torch.uint8
        return (x.float().mean((2, 3)) * self.scale,)


def test_inception_reads_its_file_as_data_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    stand_in.FeatureExtractorInceptionV3 = Halves  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    torch.save({"scale": torch.tensor(0.5)}, tmp_path / "good.pth")
    net, name = load_inception(tmp_path / "good.pth")
    pixels = torch.full((2, 3, 5, 7), 100, dtype=torch.uint8)
    assert torch.equal(features_of(net, pixels), torch.full((2, 3), 50.0)) and name.startswith("good.pth ")
    torch.save({"scale": torch.tensor(0.5), "code": Halves}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="would run code"):
        load_inception(tmp_path / "bad.pth")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / inception.INCEPTION
    torch.save({"scale": torch.tensor(0.5)}, file)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ModuleNotFoundError, match=r"torch-fidelity.*pip install '\.\[eval\]'"):
        load_inception(file)
