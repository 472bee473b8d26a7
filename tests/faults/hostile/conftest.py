"""Hostile checkpoints, configs, archives and headers: none has an effect, takes memory or time.

Each is read in a process of its own, forked from one that has all imported, by a real command or by the library's
functions. There it is measured: what it ends with, what it prints, its memory and time; and afterwards no file is new.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hostile.attempts import ADDRESS, LARGEST, LONGEST, PATIENCE, ROOT, TOKEN, Attempt, Ended, tree
from tests.faults.hostile.honest import MIB


@pytest.fixture(scope="package", autouse=True)
def _measurable() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured by Linux' /proc")


@pytest.fixture(scope="package")
def server() -> Iterator[subprocess.Popen[str]]:
    """One for all files here, since to import everything takes longer than most of them."""
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.faults.hostile.attempts import serve; serve()"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The folder in which everything happens, and below which nothing may be new; `deep` is where commands start."""
    (tmp_path / "world" / "deep" / "er").mkdir(parents=True)
    return tmp_path / "world"


@pytest.fixture
def marker(world: Path) -> Path:
    """The file that is there as soon as one of the attacks works."""
    return world / "marker"


@pytest.fixture
def attempted(server: subprocess.Popen[str], world: Path, tmp_path: Path) -> Attempt:
    """Try something, and check what holds for all: nothing new in the world, little memory, little time, no secret."""

    def run(entry: str, *arguments: str | Path, writes: bool = False) -> Ended:
        assert server.stdin is not None
        assert server.stdout is not None
        report, before = tmp_path / "report", tree(world)
        for file in tmp_path.glob("report.*"):
            file.unlink()
        request = {
            "entry": entry,
            "arguments": [str(a) for a in arguments],
            "folder": str(world / "deep" / "er"),
            "report": str(report),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        said = [report.with_suffix(f".{n}").read_text(errors="replace") for n in ("output", "error")]
        taken = report.with_suffix(".memory")
        ended = Ended(**answer, output=said[0], error=said[1], bytes=int(taken.read_text()) if taken.exists() else 0)
        assert not [path for path in tree(world) if "marker" in path], "the attack worked"
        if not writes:
            assert tree(world) == before
        assert ended.code is not None, f"it still ran after {PATIENCE:.0f} s: {ended.error[-2000:]}"
        assert "Traceback" not in ended.error, ended.error[-3000:]
        assert ended.bytes < LARGEST, f"it took {ended.bytes / MIB:.0f} MiB"
        assert ended.seconds < LONGEST
        assert len(ended.error) < 10_000, ended.error[:1000]
        for secret in (TOKEN, ADDRESS):
            assert secret not in ended.output + ended.error
        return ended

    return run
