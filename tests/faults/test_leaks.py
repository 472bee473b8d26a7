"""What runs for days must not grow."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.conftest import LIMITS, Compose
from tests.unit.video.test_video_file import Recording
from vqgan.data import BadFiles, Loader
from vqgan.data.videos import VideoFolder
from vqgan.training.run import run
from vqgan.training.step import Step
from vqgan.video.file import scan_video

KINDS = (
    Recording(), Recording(b_frames=2), Recording("libvpx", "webm"), Recording("mpeg4", "avi"),
    Recording("mjpeg", "mov", "yuvj420p"), Recording(suffix="mkv"), Recording(suffix="ts"),
    Recording("ffv1", "mkv", "bgr0"),
)  # fmt: skip


def resident() -> float:
    """MB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.slow
def test_2000_clip_reads_leave_memory_files_and_threads_as_they_were(tmp_path: Path) -> None:
    files = []
    for number in range(40):
        path = KINDS[number % len(KINDS)].write_numbers(tmp_path, 24)
        files.append(path.rename(path.with_name(f"{number}{path.suffix}")))
    dataset = VideoFolder([scan_video(file)[0] for file in files], 48, 4, 1, None, True, True)
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 0.0, 0)
    sequence = Loader(dataset, 4, 0, 7, bad_files, LIMITS).sequence
    for number in range(200):
        assert sequence[number].clip is not None
    memory, files_open, threads = resident(), opened(), threading.active_count()
    for number in range(200, 2200):
        assert sequence[number].clip is not None
        assert opened() <= files_open
        assert threading.active_count() <= threads
    assert resident() - memory <= 50, "MB"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_of_2000_steps_does_not_grow(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {}
    original = Step.__call__

    def step(self: Step, step: int, clips: object) -> object:
        if step in (200, 1999):
            measured[step] = (resident(), opened(), threading.active_count())
        return original(self, step, clips)  # type: ignore[arg-type]

    monkeypatch.setattr(Step, "__call__", step)
    run(composed("trainer.steps=2000", "data.workers=1", "loss.discriminator_start=10", "trainer.log_every=10",
                 "trainer.evaluate_every=100", "trainer.checkpoint_every=100"))  # fmt: skip
    (before, files_open, threads), (after, files_open_then, threads_then) = measured[200], measured[1999]
    assert after - before <= 50, "MB"
    assert files_open_then <= files_open
    assert threads_then <= threads
