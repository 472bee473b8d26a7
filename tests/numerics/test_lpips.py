"""LPIPS against the reference's numbers, and against the lpips package where it can be imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import FOLDER, filled, inputs
from vqgan.errors import ConfigError
from vqgan.losses import LPIPS
from vqgan.losses import lpips as module
from vqgan.losses.lpips import vgg16_features


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with VGG16's tensors as the golden numbers have them, named as in torchvision."""
    state = {f"features.{name}": value for name, value in vgg16_features().state_dict().items()}
    for name, value in state.items():
        gain = 2**0.5 if name.endswith("weight") else 1.0
        value.copy_(filled(name, list(value.shape)) * gain)
    file = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, file)
    return file


@pytest.fixture(scope="session")
def lpips(trunk: Path) -> LPIPS:
    return LPIPS(str(trunk))


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    described: dict[str, Any] = json.loads((FOLDER / "lpips.json").read_text())
    return described


def golden_inputs(golden: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Two batches of frames; the second is dimmed, so that they differ by more than a shift."""
    a, b = (inputs(*golden[key][:5])[:, None] for key in ("input_a", "input_b"))
    return a, b * 0.8


def test_distance_and_gradient(lpips: LPIPS, golden: dict[str, Any]) -> None:
    a, b = golden_inputs(golden)
    b.requires_grad_()
    distance = lpips(a, b)
    assert distance.flatten().tolist() == pytest.approx(golden["distance"], rel=1e-4)
    (gradient,) = torch.autograd.grad(distance.mean(), b)
    assert float(gradient.norm()) == pytest.approx(golden["grad_norm_of_mean_wrt_b"], rel=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision", "ignore::FutureWarning:lpips")  # lpips is of 2021
def test_against_the_lpips_package(lpips: LPIPS, trunk: Path, golden: dict[str, Any]) -> None:
    try:
        import lpips as package
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision that does not fit torch raises RuntimeError
        pytest.skip(f"the lpips package does not import here: {error}")
    theirs = package.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    state = torch.load(trunk, weights_only=True)
    theirs.net.load_state_dict({k: state[f"features.{k.split('.', 1)[1]}"] for k in theirs.net.state_dict()})
    a, b = golden_inputs(golden)
    torch.testing.assert_close(lpips(a, b)[:, 0], theirs(a[:, 0], b[:, 0]).flatten().detach(), rtol=1e-4, atol=1e-6)


def test_equal_images_have_distance_zero_and_a_finite_gradient(lpips: LPIPS) -> None:
    for x in (inputs(1, 3, 32, 32, 0)[None], torch.zeros(1, 1, 3, 32, 32)):
        y = x.clone().requires_grad_()
        distance = lpips(x, y)
        (gradient,) = torch.autograd.grad(distance.sum(), y)
        assert float(distance.detach()) == 0.0
        assert torch.isfinite(gradient).all()


def test_weights_may_lie_in_the_home_folder(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(trunk.parent))
    assert LPIPS(f"~/{trunk.name}").features[0].weight.isfinite().all()


def test_it_is_frozen_and_always_in_evaluation_mode(lpips: LPIPS) -> None:
    assert not any(p.requires_grad for p in lpips.parameters())
    assert not any(module.training for module in lpips.train().modules())


def test_every_head_is_the_calibrated_one(lpips: LPIPS) -> None:
    """Heads that were not found would be random, with both signs; the calibrated ones are never negative."""
    assert all(float(head.weight.min()) >= 0 and float(head.weight.max()) > 0 for head in lpips.heads)


@pytest.mark.parametrize("content", [b"", b"not weights", None], ids=["empty", "text", "missing"])
def test_unusable_weights_name_the_key(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "vgg16.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"loss\.perceptual\.weights"):
        LPIPS(str(file))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="VGG16"):
        LPIPS(str(tmp_path / "other.pth"))


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ConfigError, match=r"\(no network\).* loss\.perceptual\.weights=FILE, .*perceptual_weight=0"):
        LPIPS(None)


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("vqgan.files.weights.PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}/vgg16.pth"
        monkeypatch.setattr(module, "VGG16", dataclasses.replace(module.VGG16, url=silent_url))
        with pytest.raises(ConfigError, match="timed out"):
            LPIPS(None)


def test_only_the_published_file_is_taken_from_the_cache(
    trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    module.VGG16.cached.parent.mkdir()
    shutil.copy(trunk, module.VGG16.cached)
    with pytest.raises(ConfigError, match="its SHA-256 is"):
        LPIPS(None)
    digest = hashlib.sha256(trunk.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "VGG16", dataclasses.replace(module.VGG16, sha256=digest))
    for found, expected in zip(LPIPS(None).parameters(), LPIPS(str(trunk)).parameters(), strict=True):
        assert torch.equal(found, expected)
