"""A run that was killed, at any moment and any number of times, ends as the run that was not."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import Compose
from tests.support import priors
from tests.support.priors import markov, write_codes
from tests.support.runs import SMALL, code_use, digest, finish, rows, saved_steps, start, train, unfinished
from vqgan.data import Loader
from vqgan.data.loader import EndlessClips, Sample
from vqgan.errors import ConfigError, DataError
from vqgan.files.reading import read_rows
from vqgan.runs.checkpoint import Checkpoints, read
from vqgan.runs.saved import load_config
from vqgan.runs.status import status_of
from vqgan.training.run import run
from vqgan.training.step import Step

STEPS, EVERY = 120, 5
LONG = (f"trainer.steps={STEPS}", f"trainer.checkpoint_every={EVERY}", "trainer.evaluate_every=40")
# Wraps each stage of a save so that it takes long enough to be hit by a kill.
SLOW_SAVE = """
import sys, time
from vqgan.runs import checkpoint

def slowed(function):
    def wrapped(*arguments, **values):
        print("saving", flush=True)
        time.sleep(0.02)
        result = function(*arguments, **values)
        time.sleep(0.02)
        return result
    return wrapped

for name in ("_write", "_publish", "_link", "_prune"):
    setattr(checkpoint.Checkpoints, name, slowed(getattr(checkpoint.Checkpoints, name)))
checkpoint._flush = slowed(checkpoint._flush)
from vqgan.commands import run
run("train")
"""
# Kills itself before or after the n-th call of a function that a save is made of.
KILL_AT = """
import os, signal, sys
from vqgan.runs import checkpoint

owner, name, moment, count = sys.argv.pop(1).split(",")
owner = {"checkpoint": checkpoint, "Checkpoints": checkpoint.Checkpoints, "torch": checkpoint.torch}[owner]
original, calls = getattr(owner, name), []

def wrapped(*arguments, **values):
    calls.append(1)
    if len(calls) == int(count) and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **values)
    if len(calls) == int(count) and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, wrapped)
from vqgan.commands import run
run("train")
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder, *LONG, XDG_CACHE_HOME=str(folder.parent))
    return folder


def torture(folder: Path, undisturbed: Path, script: Path, kills: int, small: Sequence[str] = SMALL) -> int:
    """Kill a run at random moments, every third time inside a save; how many of these hit one."""
    chance, inside = random.Random(0), 0
    for number in range(kills):
        done = max(saved_steps(folder), default=0)
        process = start(folder, *LONG, script=script, small=small, XDG_CACHE_HOME=str(undisturbed.parent))
        assert process.stdout is not None
        lines: Iterator[str] = iter(process.stdout.readline, "")
        target = chance.randint(0, 12) if number % 3 else chance.randint(4, 20)
        if number % 3 == 0:
            next(itertools.islice((line for line in lines if "saving" in line), target, None), None)
        else:
            while len(rows_or_none(folder)) < min(target, STEPS) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error
        if process.returncode == 0:  # so lucky as to end before it was killed: another one is begun
            assert_as_undisturbed(folder, undisturbed)
            shutil.rmtree(folder)
            continue
        inside += bool(unfinished(folder))
        lost = [path for path in (folder / "checkpoints").glob("step-*") if not is_good(path)]
        assert lost == [], "what is named a checkpoint is one"
        assert max(saved_steps(folder), default=0) >= done
    return inside


def rows_or_none(folder: Path) -> list[str]:
    file = folder / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def is_good(path: Path) -> bool:
    read(path)
    return True


def assert_as_undisturbed(folder: Path, undisturbed: Path) -> None:
    assert digest(folder) == digest(undisturbed)
    assert rows(folder) == rows(undisturbed)
    told = "codebook.jsonl" if (undisturbed / "codebook.jsonl").exists() else "evaluation.json"  # else of a prior
    assert (folder / told).read_text() == (undisturbed / told).read_text()
    assert unfinished(folder) == []


KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path: Path, undisturbed: Path) -> None:
    script = tmp_path / "slow_save.py"
    script.write_text(SLOW_SAVE)
    inside = torture(tmp_path / "run", undisturbed, script, KILLS)
    assert inside >= KILLS // 4, "too few kills have hit a save to prove anything"
    train(tmp_path / "run", *LONG, XDG_CACHE_HOME=str(undisturbed.parent))
    assert_as_undisturbed(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_prior_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    tokens = write_codes(tmp_path / "tokens", {f"{n}.mp4": markov((6, 2, 3), 1, n)[0] for n in range(10)}, 4)
    small = ("--config-name", "prior", *priors.SMALL, f"data.root={tokens}", "prior.dropout=0.2")
    whole = tmp_path / "whole"
    code, _, error = finish(start(whole, *LONG, small=small, XDG_CACHE_HOME=str(tmp_path)))
    assert code == 0, error
    script = tmp_path / "slow_save.py"
    script.write_text(SLOW_SAVE)
    assert torture(tmp_path / "run", whole, script, KILLS // 2, small) > 0
    code, _, error = finish(start(tmp_path / "run", *LONG, small=small, XDG_CACHE_HOME=str(tmp_path)))
    assert code == 0, error
    assert_as_undisturbed(tmp_path / "run", whole)


POINTS = [
    ("Checkpoints", "_publish", "before", 2),
    *(
        pytest.param(point, marks=pytest.mark.slow)
        for point in (
            ("torch", "save", "before", 2),
            ("torch", "save", "after", 2),
            ("Checkpoints", "_publish", "after", 2),
            ("checkpoint", "_flush", "before", 7),
            ("checkpoint", "_flush", "after", 8),
            ("Checkpoints", "_link", "after", 3),
            ("Checkpoints", "_prune", "before", 3),
            ("Checkpoints", "_prune", "after", 3),
            ("checkpoint", "_discard", "after", 6),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[2]} {point[1]}")
def test_a_kill_at_any_point_of_a_save_leaves_a_good_checkpoint(
    tmp_path: Path, undisturbed: Path, point: tuple[str, str, str, int]
) -> None:
    script = tmp_path / "kill_at.py"
    script.write_text(KILL_AT.replace("sys.argv.pop(1)", repr(",".join(map(str, point)))))
    folder = tmp_path / "run"
    values = ("trainer.steps=20", *LONG[1:], "trainer.keep=1")
    code, _, error = finish(start(folder, *values, script=script, XDG_CACHE_HOME=str(undisturbed.parent)))
    assert code == -signal.SIGKILL, error
    assert [path for path in (folder / "checkpoints").glob("step-*") if not is_good(path)] == []
    assert saved_steps(folder) != []
    train(folder, *LONG, XDG_CACHE_HOME=str(undisturbed.parent))
    assert_as_undisturbed(folder, undisturbed)


# The matrix: where a run can be cut, how it reads, and how it computes

MOMENTS = {
    "in the first step": 0,
    "in the middle of an epoch": 2,
    "at the end of an epoch": 4,
    "at the start of the next": 5,
    "where the discriminator starts": 6,
    "at the end of the warm-up": 7,
    "in the last step": 8,
}
MATRIX = (
    "trainer.steps=9", "trainer.accumulate=2", "trainer.log_every=1", "trainer.checkpoint_every=1", "data.batch_size=2",
    "loss.discriminator_start=6", "trainer.discriminator_every=2", "schedule=cosine", "schedule.warmup_steps=7",
    "data.videos=5", "data.video_frames=5", "data.clip_frames=1",
)  # fmt: skip  # four files of five frames are an epoch of 20 clips: five steps


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, str]:
    """Digests of the undisturbed runs, by precision."""
    return {}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "workers", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(
    composed: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_runs: dict[str, str],
    moment: str,
    workers: int,
    precision: str,
) -> None:
    values = [*MATRIX, f"trainer.precision={precision}"]
    if precision not in whole_runs:
        assert len(run(composed(*values, f"run_dir={tmp_path / 'whole'}")).loader.dataset) == 20
        whole_runs[precision] = digest(tmp_path / "whole")

    def cut(self: Step, step: int, finite: Tensor, original: Any = Step.update_autoencoder) -> None:
        if step == MOMENTS[moment]:
            raise Killed
        original(self, step, finite)

    config = composed(*values, f"data.workers={workers}", f"run_dir={tmp_path / 'cut'}")
    with monkeypatch.context() as patch:
        patch.setattr(Step, "update_autoencoder", cut)
        with pytest.raises(Killed):
            run(config)
    assert saved_steps(tmp_path / "cut")[-1:] == ([MOMENTS[moment]] if MOMENTS[moment] else [])
    run(config)
    assert digest(tmp_path / "cut") == whole_runs[precision]


@pytest.mark.slow
def test_a_cut_between_micro_batches_is_a_cut_before_the_step(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(composed(*MATRIX, f"run_dir={tmp_path / 'whole'}"))
    config = composed(*MATRIX, f"run_dir={tmp_path / 'cut'}")
    original = Loader.batches

    def cut(self: Loader, first: int) -> Iterator[torch.Tensor]:
        for number, batch in enumerate(original(self, first), first):
            if number == 9:  # the second half of step 4
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "batches", cut)
        with pytest.raises(Killed):
            run(config)
    run(config)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


# What is recorded, and what a change of it means


@pytest.mark.slow
def test_what_results_depend_on_is_recorded(composed: Compose, tmp_path: Path) -> None:
    run(composed("trainer.steps=1"))
    _, state = read(tmp_path / "run" / "checkpoints" / "latest")
    record = state["provenance"]
    assert {"torch", "numpy", "av", "python", "vqgan", "device", "processes"} < record["environment"].keys()
    assert record["environment"]["threads (OMP_NUM_THREADS)"] == str(torch.get_num_threads())
    assert record["data"].startswith("60 files, ")
    assert record["config"]["optimizer.lr"] > 0
    assert "data.workers" not in record["config"]


@pytest.mark.slow
def test_another_number_of_threads_is_named_in_a_warning(composed: Compose) -> None:
    run(composed("trainer.steps=1"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(
            UserWarning, match=rf"no longer exactly.*OMP_NUM_THREADS\) was {threads} and is {threads + 1}"
        ):
            run(composed("trainer.steps=2"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.lr=0.007", r"optimizer.lr was .* and is 0.007"),
        ("loss.discriminator_start=5", "loss.discriminator_start was .* and is 5"),
        ("data.batch_size=1", "data.batch_size was 2 and is 1"),
        ("trainer.precision=bf16", "trainer.precision was fp32 and is bf16"),
    ],
)
def test_a_change_that_ends_exactness_is_named(composed: Compose, change: str, said: str) -> None:
    run(composed("trainer.steps=1"))
    with pytest.warns(UserWarning, match=said):
        run(composed("trainer.steps=2", change))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["data.workers=1", "trainer.log_every=2", "trainer.keep=5", "name=other"])
def test_a_change_that_moves_no_weight_is_not_worth_a_word(composed: Compose, change: str) -> None:
    run(composed("trainer.steps=1"))
    run(composed("trainer.steps=2", change))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["a file more", "a file less", "a file of another size"])
def test_another_data_set_is_refused_unless_the_user_says_so(composed: Compose, tmp_path: Path, change: str) -> None:
    values = [f"data.root={tmp_path / 'data'}", "data.videos=4", "data.video_frames=4"]
    run(composed(*values, "trainer.steps=1"))
    (folder,) = (tmp_path / "data").iterdir()
    if change == "a file more":
        (folder / "more.mp4").write_bytes((folder / "000.mp4").read_bytes())
    elif change == "a file less":
        (folder / "000.mp4").unlink()
    else:
        (folder / "000.mp4").write_bytes((folder / "000.mp4").read_bytes() + bytes(8))
    with pytest.raises(ConfigError, match=r"The data are not those .* allow_other_data=true") as error:
        run(composed(*values, "trainer.steps=2"))
    assert error.value.exit_code == 2
    with pytest.warns(UserWarning, match="another data set"):
        run(composed(*values, "trainer.steps=2", "allow_other_data=true"))


@pytest.mark.slow
def test_the_same_data_elsewhere_is_the_same_data(composed: Compose, tmp_path: Path) -> None:
    values = ["data.videos=4", "data.video_frames=4", "trainer.log_every=1"]
    run(composed(*values, f"data.root={tmp_path / 'here'}", "trainer.steps=1"))
    (tmp_path / "here").rename(tmp_path / "there")
    run(composed(*values, f"data.root={tmp_path / 'there'}", "trainer.steps=2"))


@pytest.mark.slow
def test_rows_from_after_the_checkpoint_are_written_once(composed: Compose, tmp_path: Path) -> None:
    values = ["trainer.log_every=1", "trainer.evaluate_every=1"]
    run(composed("trainer.steps=1", *values))
    for name in ("metrics.jsonl", "codebook.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"step": 2}\n{"st')  # what a kill has left
    run(composed("trainer.steps=2", *values))
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2]
    assert [json.loads(row)["step"] for row in code_use(tmp_path / "run").splitlines()] == [0, 1, 2]


@pytest.mark.slow
def test_rows_that_a_power_cut_has_taken_are_missed_and_glued_to_nothing(composed: Compose, tmp_path: Path) -> None:
    values = ["trainer.log_every=1", "trainer.evaluate_every=1"]
    run(composed("trainer.steps=3", *values))
    for name in ("metrics.jsonl", "codebook.jsonl"):
        file = tmp_path / "run" / name
        os.truncate(file, file.stat().st_size - 5)
    with pytest.warns(
        UserWarning, match=r"(metrics|codebook)\.jsonl has \d+ bytes, and had \d+ when the checkpoint was saved"
    ):
        run(composed("trainer.steps=5", *values))
    for name in ("metrics.jsonl", "codebook.jsonl"):
        found = [row["step"] for row in read_rows(tmp_path / "run", name)]
        assert found == [0, 1, 2, 4, 5], "step 3 was torn, and tears no other"


@pytest.mark.slow
def test_rows_are_on_the_disk_before_a_checkpoint_counts_them(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synced(handle: int, original: Any = os.fsync) -> None:
        happened.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        original(handle)

    happened: list[str] = []
    monkeypatch.setattr(os, "fsync", synced)
    run(composed("trainer.steps=1"))
    assert {"metrics.jsonl", "codebook.jsonl"} <= set(happened[: happened.index("state.pt")])


@pytest.mark.slow
def test_a_run_without_its_checkpoints_says_that_it_begins_again(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_in_background", cut)
        with pytest.raises(Killed):
            run(composed("trainer.steps=2", "trainer.log_every=1"))
    run(composed("trainer.steps=2", "trainer.log_every=1"))
    assert "stopped before its first checkpoint: it begins again at step 0" in capsys.readouterr().out
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2]
    assert [json.loads(row)["step"] for row in code_use(tmp_path / "run").splitlines()] == [0, 2]


# What a run ends with stays with it


@pytest.mark.slow
def test_a_run_that_its_data_end_keeps_what_it_goes_on_from(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("trainer.steps=6", "trainer.checkpoint_every=1")
    run(composed(*values, f"run_dir={tmp_path / 'whole'}"))
    config = composed(*values)
    original = EndlessClips.__getitem__

    def failing(self: EndlessClips, number: int) -> Sample:
        return original(self, number) if number < 6 else Sample(None, {}, [("a.mp4", "its storage is gone")])

    with monkeypatch.context() as patch:
        patch.setattr(EndlessClips, "__getitem__", failing)
        with pytest.raises(DataError, match="cannot be read"):
            run(config)
    status = status_of(tmp_path / "run")
    assert status is not None
    assert (status.state, status.exit_code) == ("failed", 3)
    assert load_config(tmp_path / "run") is not None
    assert (tmp_path / "run" / "overrides.yaml").exists()
    run(config)
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.slow
def test_a_resume_that_is_refused_leaves_config_and_status(composed: Compose, tmp_path: Path) -> None:
    run(composed("trainer.steps=1"))
    before = {name: (tmp_path / "run" / name).read_text() for name in ("config.yaml", "status.json")}
    with pytest.raises(ConfigError, match=r"was trained with torch\.optim\.Adam"):
        run(composed("trainer.steps=2", "optimizer=adamw"))
    assert {name: (tmp_path / "run" / name).read_text() for name in before} == before


@pytest.mark.slow
def test_a_changed_optimizer_is_the_one_that_trains(composed: Compose) -> None:
    run(composed("trainer.steps=1", "optimizer.fused=false"))
    changed = {"optimizer.weight_decay": 0.5, "optimizer.betas": [0.1, 0.2], "optimizer.fused": True}
    with pytest.warns(UserWarning, match=r"optimizer.betas was .* and is \[0.1, 0.2\]"):
        trainer = run(composed("trainer.steps=2", "trainer.discriminator_every=1", "loss.discriminator_start=0",
                               *(f"{key}={value}" for key, value in changed.items())))  # fmt: skip
    for optimizer in (player.optimizer for player in trainer.step.players):
        (group,) = optimizer.param_groups
        assert (group["weight_decay"], tuple(group["betas"]), group["fused"]) == (0.5, (0.1, 0.2), True)


@pytest.mark.slow
def test_a_run_goes_on_without_the_weights_that_it_began_with(composed: Compose, tmp_path: Path) -> None:
    run(composed("trainer.steps=1", f"run_dir={tmp_path / 'first'}"))
    values = (f"init_from={tmp_path / 'first'}",)
    run(composed(*values, "trainer.steps=1"))
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    assert run(composed(*values, "trainer.steps=2")).done == 2


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["loss.balance.max_weight", "trainer.clip_gradients"])
def test_no_limit_is_no_divergence(composed: Compose, limit: str) -> None:
    run(composed(f"{limit}=inf", "loss.discriminator_start=0", "trainer.checkpoint_every=1"))
