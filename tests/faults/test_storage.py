"""Disks that are full, read-only or gone, and memory that runs out: a clear end, and nothing lost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.conftest import Compose
from tests.support.runs import ROOT, SMALL, finish, rows, saved_steps, start, train, unfinished
from tests.support.tokenizers import random_tokenizer
from vqgan.errors import StorageError
from vqgan.evaluation.evaluator import Evaluator
from vqgan.evaluation.networks import WeightFiles
from vqgan.runs.checkpoint import Checkpoints, read
from vqgan.runtime.device import out_of_memory
from vqgan.tokenizer.inference import move_to
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild
from vqgan.training.run import run
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer

can_mount = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
needs_mounts = pytest.mark.skipif(not can_mount, reason="this user cannot mount")
MANY = ("trainer.steps=400", "trainer.checkpoint_every=10", "trainer.evaluate_every=1000", "trainer.keep=30")


def in_a_small_disk(folder: Path, size: str, *overrides: str, options: str = "") -> tuple[int, str]:
    """Train with `folder` on a file system of its own; what is there at the end is copied to `folder`-copy."""
    inside = " ".join([sys.executable, str(ROOT / "train.py"), *SMALL, f"run_dir={folder}/run", *overrides])
    script = (
        f"mount -t tmpfs -o size={size}{options} none {folder} && {inside}; code=$?; "
        f"cp -a {folder}/. {folder}-copy/; exit $code"
    )
    Path(f"{folder}-copy").mkdir()
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def paragraph(error: str) -> str:
    """The last line of what was printed; there must be no traceback."""
    assert "Traceback" not in error, error
    return error.strip().splitlines()[-1]


@pytest.mark.slow
@needs_mounts
def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_is_needed(tmp_path: Path) -> None:
    code, error = in_a_small_disk(tmp_path / "disk", "4M", *MANY)
    assert code == 5, error
    said = paragraph(error)
    assert "/run/checkpoints/step-" in said
    assert "cannot be written" in said
    assert "bytes are free" in said
    assert "It needs" in said
    copy = tmp_path / "disk-copy" / "run"
    assert unfinished(copy) == []
    assert saved_steps(copy) != []
    for path in (copy / "checkpoints").glob("step-*"):
        read(path)
    assert (copy / "checkpoints" / "latest").exists()


@pytest.mark.slow
@needs_mounts
def test_a_disk_too_small_for_two_checkpoints_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    code, error = in_a_small_disk(tmp_path / "disk", "1M", *MANY)
    assert code == 5, error
    assert "has no room for checkpoints" in paragraph(error)


@needs_mounts
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    code, error = in_a_small_disk(tmp_path / "disk", "20M", *MANY, options=",ro")
    assert code == 5, error
    assert str(tmp_path / "disk" / "run") in paragraph(error)
    assert "Read-only file system" in paragraph(error)


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_as_a_full_disk(tmp_path: Path) -> None:
    """By a limit of the process, which needs no rights."""
    train(tmp_path / "run", "trainer.steps=10", "trainer.checkpoint_every=5")
    size = (tmp_path / "run" / "checkpoints" / "latest" / "state.pt").stat().st_size
    script = tmp_path / "limited.py"
    script.write_text(
        f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size - 1000}, {size - 1000}))\n"
        "from vqgan.commands import run\nrun('train')\n"
    )
    code, _, error = finish(start(tmp_path / "run", "trainer.steps=20", "trainer.checkpoint_every=5", script=script))
    assert code == 5, error
    assert "step-00000015" in paragraph(error)
    assert unfinished(tmp_path / "run") == []
    assert saved_steps(tmp_path / "run")[-1] == 10
    train(tmp_path / "run", "trainer.steps=20", "trainer.checkpoint_every=5")


@pytest.mark.parametrize("what", ["metrics.jsonl", "reconstructions", "checkpoints", "everything"])
def test_what_is_removed_while_a_run_writes_to_it_ends_it_clearly(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    original = Trainer._step

    def remove(self: Trainer, *arguments: Any) -> None:
        if self.done == 2:
            self.checkpoints.finish()  # else two would be removing
            shutil.rmtree(tmp_path / "run") if what == "everything" else None
            if what == "checkpoints":
                shutil.rmtree(tmp_path / "run" / what)
                (tmp_path / "run" / what).touch()
        original(self, *arguments)

    if what in ("metrics.jsonl", "reconstructions"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / what).mkdir() if what == "metrics.jsonl" else (tmp_path / "run" / what).touch()
    monkeypatch.setattr(Trainer, "_step", remove)
    with pytest.raises(StorageError, match=r"cannot be written") as error:
        run(composed("trainer.steps=9", "trainer.log_every=1", "trainer.checkpoint_every=1"))
    assert error.value.exit_code == 5
    assert str(tmp_path / "run") in str(error.value)
    assert (tmp_path / "run").exists() == (what != "everything"), "a folder that has gone does not come back"


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 17.50 GB, other allocations: 1.10 GB, max allowed: 18.13)"
        ),
        dist.DistBackendError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"),
    ],
    ids=["device", "process", "Python", "cuBLAS", "Apple", "NCCL"],
)
def test_when_memory_runs_out_peak_batch_and_resolution_are_named(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    original = Step.autoencoder_gradients

    def explode(self: Step, step: int, *arguments: Any) -> Any:
        if step == 3:
            raise raised
        return original(self, step, *arguments)

    monkeypatch.setattr(Step, "autoencoder_gradients", explode)
    with pytest.raises(
        StorageError, match=r"Out of memory on cpu: the peak was \d+\.\d GiB, with 2 clips of 1"
    ) as error:
        run(composed("trainer.steps=9", "trainer.checkpoint_every=2"))
    assert error.value.exit_code == 5
    for word in (
        "16×16",
        "data.batch_size",
        "What helps most: ",
        "GiB of it",
        "trainer.accumulate",
        "data.resolution",
        "trainer.precision=bf16",
    ):
        assert word in str(error.value)
    assert read(tmp_path / "run" / "checkpoints" / "latest")[0] == 2


@pytest.mark.parametrize(
    ("size", "said"), [(10**14, r": one tensor alone needs [\d,.]+ GiB more\. Try"), (5 * 10**18, r"\. Try")]
)
@pytest.mark.parametrize("model", ["vqmodel", "emavq"])
def test_networks_that_no_memory_holds_are_a_paragraph(composed: Compose, model: str, size: int, said: str) -> None:
    config = composed(f"model={model}", f"model.quantizer.codebook_size={size}")
    with pytest.raises(StorageError, match=f"^Out of memory before the work begins{said}") as error:
        run(config)
    assert error.value.exit_code == 5
    assert "model.quantizer.codebook_size" in str(error.value)


GPU_IS_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of …")


@pytest.mark.parametrize("where", ["vqgan.training.wiring.prepare", "torch.optim.Optimizer.load_state_dict"])
def test_a_device_that_does_not_hold_the_networks_is_a_paragraph(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise GPU_IS_FULL

    run(composed("trainer.steps=2"))
    monkeypatch.setattr(where, explode)
    with pytest.raises(StorageError, match=r"before the work begins: one tensor alone needs 20.00 MiB more") as error:
        run(composed("trainer.steps=4"))
    assert "backbone.channels" in str(error.value)
    assert read(tmp_path / "run" / "checkpoints" / "latest")[0] == 2


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("torch.nn.Module.to", "before the work begins: one tensor alone needs 20.00 MiB more. Choose a device"),
        (
            "vqgan.evaluation.evaluator.to_frames",
            r"the peak was \d+\.\d GiB, with a batch of 1×2×16×16×3\. .* half the resolution, .* save about \d",
        ),
        (
            "vqgan.evaluation.figures.measure",
            r"the peak was \d+\.\d GiB, with a batch of 1×2×16×16×3\. .* half the resolution, .* save about \d",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Memory ran out")
def test_an_evaluation_without_memory_is_a_paragraph(monkeypatch: pytest.MonkeyPatch, where: str, said: str) -> None:
    def explode(*_: object, **__: object) -> None:
        raise GPU_IS_FULL

    tokenizer, clips = random_tokenizer(), [(Path("a.mp4"), torch.zeros(2, 16, 16, 3, dtype=torch.uint8))]
    files = WeightFiles(vgg16=None, inception=None, i3d=None)
    evaluator = Evaluator(clips=None, batch_frames=2, device="cpu", precision="fp32", replicates=0, confidence=0.95,
                          seed=0, download=False, weights=files)  # fmt: skip
    monkeypatch.setattr(where, explode)
    with pytest.raises(StorageError, match=said):
        evaluator.measure(tokenizer, clips)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda tokenizer: move_to(tokenizer, "cpu"), "Choose a device that has it"),
        (lambda tokenizer: rebuild(tokenizer.description, tokenizer.state_dict()), "Choose a machine that has it"),
    ],
    ids=["placing", "loading"],
)
def test_a_tokenizer_that_does_not_fit_is_a_paragraph(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Tokenizer], Tokenizer], said: str
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise GPU_IS_FULL

    tokenizer = random_tokenizer()
    monkeypatch.setattr("torch.nn.Module.to", explode)
    monkeypatch.setattr("vqgan.tokenizer.tokenizer.Tokenizer.__init__", explode)
    with pytest.raises(StorageError, match=f"before the work begins: .* {said}"):
        call(tokenizer)


@pytest.mark.slow
def test_memory_that_really_runs_out_is_recognised(tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    limit = 600 * 2**20
    script.write_text(
        "import resource, torch, vqgan.training.run\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))\n"
        "from vqgan.commands import run\nrun('train')\n"
    )
    values = ("backbone.channels=64", "backbone.norm_groups=4", "backbone.resolution=256", "data.batch_size=16")
    code, _, error = finish(start(tmp_path / "run", *values, "data.validation_clips=1", script=script))
    assert code == 5, error
    assert paragraph(error).startswith("Out of memory on cpu"), error


def test_other_errors_are_not_taken_for_a_lack_of_memory(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Step, "autoencoder_gradients", explode)
    with pytest.raises(RuntimeError, match="a bug"):
        run(composed())


def test_the_peak_is_that_of_the_process() -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert f"{peak:.1f} GiB" in str(out_of_memory(torch.device("cpu"), (1, 4, 16, 16, 3), 2, "Half of it helps."))


@pytest.mark.slow
def test_a_second_process_is_turned_away_at_once_and_a_killed_ones_lock_is_taken_over(tmp_path: Path) -> None:
    rarely = ("trainer.checkpoint_every=99999", "trainer.evaluate_every=99999")
    first = start(tmp_path / "run", "trainer.steps=99999", "data.workers=2", *rarely)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    code, _, error = finish(start(tmp_path / "run"))
    waited = time.monotonic() - began
    assert (code, first.poll()) == (6, None)
    assert f"in use by process {first.pid} on " in paragraph(error)
    assert waited < 20, "most of it is the start of Python and torch"
    os.kill(first.pid, 9)  # its workers are not told
    first.communicate()
    code, out, error = finish(start(tmp_path / "run", "trainer.steps=1"))
    assert code == 0, error
    assert "begins again at step 0" in out
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1]


def test_room_is_that_of_the_disk(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.require_room(1000)
    with pytest.raises(StorageError, match="has no room"):
        checkpoints.require_room(2**60)
