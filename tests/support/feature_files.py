"""Files like the published ones of feature networks, with random weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqgan.evaluation import networks as feature_networks
from vqgan.evaluation.networks import bare_package
from vqgan.files.weights import WeightFile


class StandIn(torch.nn.Module):
    """Called as StyleGAN-V's I3D is; its features are means over parts of the clip."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        return torch.nn.functional.adaptive_avg_pool3d(x, (8, 10, 5)).mean(1).flatten(1)


def i3d_file(folder: Path) -> Path:
    """TorchScript of the stand-in."""
    file = folder / "i3d.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
        torch.jit.script(StandIn()).save(str(file))
    return file


def fidelity_inception() -> Any:
    """torch-fidelity's class."""
    with bare_package("torch_fidelity"):
        return importlib.import_module("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3


def inception_file(folder: Path) -> Path:
    """Inception's weights as they are drawn."""

    class Untrained(fidelity_inception()):  # type: ignore[misc]
        def load_state_dict(self, *_: object) -> None: ...

    torch.manual_seed(0)
    file = folder / "inception.pth"
    torch.save({}, file)  # which the constructor wants to read
    torch.save(Untrained("untrained", ["2048"], str(file)).state_dict(), file)
    return file


def publish(file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> WeightFile:
    """Let `feature_networks.<name>` be this file, as if it had been published."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = dataclasses.replace(getattr(feature_networks, name), sha256=digest, url=file.as_uri())
    monkeypatch.setattr(feature_networks, name, weights)
    return weights
