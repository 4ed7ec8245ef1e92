"""The FID's Inception network, by torch-fidelity (extra `eval`); weights by path or from torch's cache."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.models.checkpoint import read_state
from ldm.models.weights import fingerprint

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
FEATURES = "2048"  # the pooled ones


def load_inception(path: Path | None = None) -> tuple[nn.Module, str]:
    """uint8 [b,3,H,W] => features [b,2048], as `features_of` calls it; and `<file> <fingerprint>`."""
    file = weights_file("Inception v3 (FID)", path, FILE, URL, "--inception")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ModuleNotFoundError(
            f"Inception FID needs torch-fidelity ({error}); run `pip install '.[eval]'`"
        ) from error
    state = read_state(file)  # as data: torch-fidelity itself would run what a pickle says
    net = FeatureExtractorInceptionV3("inception-v3-compat", [FEATURES], str(file))
    return net, f"{file.name} {fingerprint(state)}"


@torch.no_grad()
def features_of(net: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels uint8 [b,3,H,W] of any size => features [b,2048] on the CPU."""
    return net(pixels.to(next(net.parameters()).device))[0].float().cpu()


def weights_file(what: str, given: Path | None, name: str, url: str, flag: str) -> Path:
    """The given file, or the one of this name in torch's download cache; FileNotFoundError in one line."""
    file = given or Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        raise FileNotFoundError(f"{what}: no {file}; fetch {url} there, or say where it is: {flag} FILE")
    return file
