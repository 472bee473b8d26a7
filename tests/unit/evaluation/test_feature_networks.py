"""Feature networks: the published file or nothing, and its features as it gives them."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support.feature_files import StandIn, fidelity_inception, i3d_file, inception_file, publish
from vqgan.evaluation.networks import (
    I3D,
    INCEPTION,
    Inception,
    WeightFiles,
    bare_package,
    find_weights,
    load_networks,
)
from vqgan.files.weights import PATIENCE, NotAvailableError

NOWHERE = WeightFiles(vgg16=None, inception=None, i3d=None)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_inceptions_features_are_torch_fidelitys(tmp_path: Path) -> None:
    file = inception_file(tmp_path)
    frames = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    theirs = fidelity_inception()("direct", ["2048"], str(file))
    found = Inception(file)(frames)
    assert found.std() > 0
    torch.testing.assert_close(found, theirs(frames)[0], rtol=0, atol=0)


def test_the_package_is_not_left_half_imported(tmp_path: Path) -> None:
    with bare_package("torch_fidelity"):
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    assert "torchvision" not in dir(module)
    assert not [name for name in sys.modules if name.startswith("torch_fidelity")]


def test_a_package_that_is_there_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("loaded = True\n")
    (tmp_path / "some_package" / "part.py").write_text("")
    package = importlib.import_module("some_package")
    with bare_package("some_package"):
        importlib.import_module("some_package.part")
    assert sys.modules["some_package"] is package
    assert package.loaded


def test_a_missing_package_is_an_import_error() -> None:
    with pytest.raises(ImportError), bare_package("no_such_package"):
        importlib.import_module("no_such_package.part")


def test_i3d_gets_whole_clips_in_0_to_255(tmp_path: Path) -> None:
    clips = torch.randint(0, 256, (2, 16, 20, 20, 3), dtype=torch.uint8)
    expected = StandIn()(clips.permute(0, 4, 1, 2, 3).float(), rescale=True, resize=True, return_features=True)
    torch.testing.assert_close(I3D(i3d_file(tmp_path))(clips), expected)


def test_another_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = i3d_file(tmp_path)
    networks = load_networks(dataclasses.replace(NOWHERE, i3d=str(file)), False, torch.device("cpu"))
    assert networks.i3d is None
    assert "i3d.pt is not i3d_torchscript.pt: its SHA-256 is" in networks.missing["rfvd"]
    assert networks.checksums == {}


def test_a_file_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match=r"weights\.inception=.*none\.pth is not there"):
        find_weights(INCEPTION, str(tmp_path / "none.pth"), download=True)
    with pytest.raises(NotAvailableError, match=r"download=false; give files: weights\.inception=DIR/"):
        find_weights(INCEPTION, None, download=False)


def test_a_download_is_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "published.pt"
    source.write_bytes(b"weights")
    weights = publish(source, monkeypatch, "INCEPTION")
    cached = tmp_path / "hub" / "checkpoints" / weights.name
    assert find_weights(weights, None, download=True) == cached
    assert cached.read_bytes() == b"weights"
    source.unlink()
    assert find_weights(weights, None, download=True) == cached


def test_a_download_that_is_not_what_was_published_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "published.pt"
    source.write_bytes(b"other weights")
    with pytest.raises(NotAvailableError, match=r"could not be downloaded .*hash"):
        find_weights(dataclasses.replace(INCEPTION, url=source.as_uri()), None, download=True)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_without_a_network_the_reason_says_what_to_do_soon() -> None:
    unreachable = dataclasses.replace(INCEPTION, url="http://127.0.0.1:9/weights.pth")
    before = time.monotonic()
    with pytest.raises(
        NotAvailableError, match=r"weights could not be downloaded \(.*refused.*\); give files: weights\.inception=DIR/"
    ):
        find_weights(unreachable, None, download=True)
    assert time.monotonic() - before < PATIENCE


def test_all_networks_that_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg16_weights: Path) -> None:
    files = {"vgg16": vgg16_weights, "inception": inception_file(tmp_path), "i3d": i3d_file(tmp_path)}
    for name, file in zip(("VGG16", "INCEPTION", "I3D_TORCHSCRIPT"), files.values()):
        publish(file, monkeypatch, name)
    given = WeightFiles(**{key: str(file) for key, file in files.items()})
    networks = load_networks(given, False, torch.device("cpu"))
    assert networks.missing == {}
    assert networks.checksums.keys() == files.keys()
    assert networks.lpips is not None
    assert networks.inception is not None
    assert networks.i3d is not None
    assert not any(p.requires_grad for p in (*networks.lpips.parameters(), *networks.inception.parameters()))
