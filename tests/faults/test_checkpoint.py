"""Checkpoints: whole or not there, verified before they are used."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vqgan.errors import CheckpointError, ConfigError, StorageError
from vqgan.runs import checkpoint
from vqgan.runs.checkpoint import Checkpoints, _with_digest, rating, read_manifest
from vqgan.runs.criterion import Criterion


def network(value: float) -> nn.Module:
    module = nn.Linear(30, 30)
    nn.init.constant_(module.weight, value)
    return module


def save(checkpoints: Checkpoints, step: int, score: float | None = None, **parts: nn.Module) -> None:
    checkpoints.save_in_background(step, score, **parts)
    checkpoints.finish()


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Checkpoints of steps 10, 20 and 30, whose weights are the step."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (10, 20, 30):
        save(checkpoints, step, score=float(-step), network=network(step))
    return checkpoints


def loaded(checkpoints: Checkpoints) -> tuple[int, float]:
    module = network(0.0)
    step = checkpoints.load_latest(network=module)
    return step, float(module.weight.detach().mean())


def test_the_newest_is_loaded_and_the_links_are_right(saved: Checkpoints) -> None:
    assert loaded(saved) == (30, 30.0)
    assert (saved.folder / "latest").resolve().name == "step-00000030"
    assert (saved.folder / "best").resolve().name == "step-00000010"
    manifest = json.loads((saved.folder / "latest" / "manifest.json").read_text())
    assert manifest["step"] == 30
    assert set(manifest["files"]) == {"state.pt"}


def test_no_checkpoint_is_step_zero(tmp_path: Path) -> None:
    assert loaded(Checkpoints(tmp_path / "none", keep=1)) == (0, 0.0)


def test_the_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, score in ((1, 5.0), (2, 9.0), (3, 1.0), (4, 2.0), (5, None)):
        save(checkpoints, step, score=score, network=network(step))
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004", "step-00000005"]
    assert checkpoints.best_score() == 9.0


def test_a_checkpoint_can_be_rated_after_it_was_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1, score=5.0, network=network(1.0))
    save(checkpoints, 2, network=network(2.0))
    checkpoints.rate(2, 9.0)
    assert checkpoints.best_score() == 9.0
    assert (tmp_path / "best").resolve().name == "step-00000002"
    assert loaded(checkpoints) == (2, 2.0)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_one_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zero_a_page(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[1024:2048] = bytes(1024)
    file.write_bytes(content)


def remove(file: Path) -> None:
    file.unlink()


DAMAGES = [
    (damage, file)
    for file in ("state.pt", "manifest.json")
    for damage in (cut, flip_one_bit, zero_a_page, remove)
    if not (file == "manifest.json" and damage in (flip_one_bit, zero_a_page))
]


@pytest.mark.parametrize(("damage", "file"), DAMAGES)
def test_damage_is_noticed_and_the_one_before_is_loaded(saved: Checkpoints, damage: Any, file: str) -> None:
    damage(saved.folder / "step-00000030" / file)
    with pytest.warns(UserWarning, match="step-00000030 is damaged"):
        assert loaded(saved) == (20, 20.0)


def plant(folder: Path, number: int) -> str:
    """One of 100 faults in the newest checkpoint; returns what it is."""
    chance = random.Random(number)
    newest = folder / "step-00000030"
    file = newest / ("state.pt" if number % 5 else "manifest.json")
    content = bytearray(file.read_bytes())
    kind = ("cut", "bit", "bit", "page", "gone")[number // 5 % 5]
    if kind == "cut":
        del content[chance.randrange(len(content)) :]
    elif kind == "bit":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "page":
        start = chance.randrange(max(1, len(content) - 4096))
        while not any(content[start : start + 512]):  # zeroing zeros is no fault
            start = chance.randrange(max(1, len(content) - 4096))
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(content)
    if number % 10 == 0:
        (folder / "latest").unlink()
        (folder / "latest").symlink_to("step-00000099")
    return kind


@pytest.mark.parametrize("number", range(100))
def test_100_planted_faults_are_caught_before_a_tensor_is_used(saved: Checkpoints, number: int) -> None:
    plant(saved.folder, number)
    with pytest.warns(UserWarning, match=r"step-00000030 is damaged.*goes on from .*step-00000020"):
        assert loaded(saved) == (20, 20.0)


@pytest.mark.parametrize("link", ["latest", "best"])
def test_a_folder_whose_checkpoints_have_gone_is_not_begun_anew(saved: Checkpoints, link: str) -> None:
    for folder in saved.folder.glob("step-*"):
        shutil.rmtree(folder)
    if link == "best":
        (saved.folder / "latest").unlink()
    with pytest.raises(CheckpointError, match="leads to no checkpoint"):
        loaded(saved)


def test_with_none_intact_nothing_is_loaded(saved: Checkpoints) -> None:
    for folder in saved.folder.glob("step-*"):
        flip_one_bit(folder / "state.pt")
    module = network(0.0)
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is intact"):
        saved.load_latest(network=module)
    assert float(module.weight.detach().abs().max()) == 0.0


def test_an_unfinished_save_is_not_a_checkpoint(saved: Checkpoints) -> None:
    (saved.folder / ".unfinished-40").mkdir()
    (saved.folder / ".unfinished-40" / "state.pt").write_bytes(b"half")
    assert loaded(saved) == (30, 30.0)


def test_a_failed_save_leaves_the_others_and_names_the_path(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 576 vs 534")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="step-00000040"):
        save(saved, 40, network=network(40))
    assert not list(saved.folder.glob(".unfinished*"))
    assert loaded(saved) == (30, 30.0)


def test_another_model_is_refused(saved: Checkpoints) -> None:
    with pytest.raises(ConfigError, match="network"):
        saved.load_latest(network=nn.Linear(30, 7))
    with pytest.raises(ConfigError, match="another kind of run"):
        saved.load_latest(other=network(0.0))


def sign(folder: Path, step: int) -> None:
    """Write a manifest that fits, as whoever makes a hostile checkpoint would."""
    content = (folder / "state.pt").read_bytes()
    files = {"state.pt": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    manifest = {"step": step, "score": None, "torch": torch.__version__, "files": files}
    (folder / "manifest.json").write_text(_with_digest(manifest))


def test_a_checkpoint_that_would_run_code_is_not_loaded(tmp_path: Path, saved: Checkpoints) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    folder = saved.folder / "step-00000040"
    folder.mkdir()
    torch.save({"network": Payload()}, folder / "state.pt")
    sign(folder, 40)
    with pytest.warns(UserWarning, match="step-00000040"):
        assert loaded(saved) == (30, 30.0)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_best_gives_way_to_the_best_intact_one(saved: Checkpoints) -> None:
    flip_one_bit(saved.folder / "step-00000010" / "state.pt")
    assert saved.best_score() == -10.0, "the manifest still says so"
    with pytest.warns(UserWarning, match=r"step-00000020 is the best of the others"):
        saved.replace_damaged_best()
    assert (saved.folder / "best").resolve().name == "step-00000020"
    saved.keep = 1
    save(saved, 40, score=-15.0, network=network(40))
    assert (saved.folder / "best").resolve().name == "step-00000040"
    assert not (saved.folder / "step-00000010").exists()
    saved.replace_damaged_best()
    assert (saved.folder / "best").resolve().name == "step-00000040", "an intact one stays, without a word"


def test_without_another_the_next_evaluation_is_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    save(checkpoints, 1, score=9.0, network=network(1))
    save(checkpoints, 2, network=network(2))
    (tmp_path / "step-00000001" / "state.pt").unlink()
    with pytest.warns(UserWarning, match="the next evaluation decides"):
        checkpoints.replace_damaged_best()
    assert checkpoints.best_score() == float("-inf")


def without_objective(folder: Path) -> None:
    """The manifest as versions wrote it before there was a choice."""
    manifest = read_manifest(folder)
    del manifest["objective"]
    (folder / "manifest.json").write_text(_with_digest(manifest))


def test_a_manifest_that_names_no_objective_is_of_psnr(saved: Checkpoints) -> None:
    for folder in saved.folder.glob("step-*"):
        without_objective(folder)
    saved.warn_of_another_objective()
    assert saved.best_score() == -10.0
    save(saved, 40, score=-15.0, network=network(40))
    assert (saved.folder / "best").resolve().name == "step-00000010"


def test_scores_of_another_objective_are_not_compared(saved: Checkpoints) -> None:
    without_objective(saved.folder / "step-00000010")
    checkpoints = Checkpoints(saved.folder, 3, Criterion("-validation/lpips"))
    with pytest.warns(UserWarning, match=r"best checkpoint by validation/psnr.*objective=-validation/lpips rates"):
        checkpoints.warn_of_another_objective()
    assert checkpoints.best_score() == float("-inf")
    assert (saved.folder / "best").resolve().name == "step-00000010", "until the next evaluation"
    save(checkpoints, 40, score=-99.0, network=network(40))
    assert (saved.folder / "best").resolve().name == "step-00000040"
    assert rating(saved.folder / "best") == (Criterion("-validation/lpips"), -99.0)
    checkpoints.warn_of_another_objective()  # without a word
    flip_one_bit(saved.folder / "step-00000040" / "state.pt")
    with pytest.warns(UserWarning, match="the next evaluation decides"):
        checkpoints.replace_damaged_best()


def test_a_checkpoint_is_rated_by_the_objective_of_then(saved: Checkpoints) -> None:
    checkpoints = Checkpoints(saved.folder, 3, Criterion("validation/ssim"))
    checkpoints.rate(30, 0.5)
    assert (saved.folder / "best").resolve().name == "step-00000030"
    assert rating(saved.folder / "best") == (Criterion("validation/ssim"), 0.5)


def test_only_copies_from_cuda_travel_while_the_host_goes_on(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asynchronous copy from another device would be hashed and written before it is there."""
    original, asked = torch.Tensor.copy_, []

    def copy(self: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        asked.append(non_blocking)
        return original(self, source, non_blocking)

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    saved.save_in_background(40, network=network(40))
    saved.finish()
    assert asked == [False, False]


def test_the_host_waits_for_each_cuda_device_that_holds_state(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[torch.device] = []
    devices = [torch.device("cuda", 1), torch.device("cpu"), torch.device("cuda", 1), torch.device("cuda", 0)]
    tensors = [SimpleNamespace(device=device, is_cuda=device.type == "cuda") for device in devices]
    monkeypatch.setattr(checkpoint, "tensors_of", lambda state: tensors if "other" not in state else [])
    monkeypatch.setattr(checkpoint, "size_of", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    saved.save_in_background(40, network=network(40))
    saved.finish()
    assert sorted(device.index for device in waited) == [0, 1]
