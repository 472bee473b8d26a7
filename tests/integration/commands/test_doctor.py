"""`vqgan doctor` on good and broken machines and folders: a line each, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Ended
from tests.unit.video.test_video_file import Recording
from vqgan.commands import main
from vqgan.doctor import machine, speed

Asked = Callable[..., Ended]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    """`vqgan doctor ARGUMENTS` in `tmp_path`, in this process, without the seconds that timing takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "speed", lambda _: speed.Speed(0.5, 4, 4, 300, 256))

    def ask(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["vqgan", "doctor", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return Ended(int(code or 0), *capsys.readouterr())

    return ask


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five videos of 24 frames, a keyframe each 12, one of another shape; a text and a half file beside them."""
    root = tmp_path / "videos"
    (root / "more").mkdir(parents=True)
    good = Recording(options={"g": "12", "sc_threshold": "0"}).write_numbers(root, 24)
    for n in range(3):
        shutil.copy(good, root / "more" / f"{n}.mp4")
    Recording("libvpx-vp9", "webm").write_numbers(root, 24, 96, 64)
    (root / "notes.mp4").write_text("notes")
    return root


def test_a_folder_is_described_in_one_screen(doctor: Asked, videos: Path) -> None:
    ended = doctor(videos)
    assert (ended.code, ended.error) == (0, "")
    for text in (
        "6 files, of which 1 cannot be used", "notes.mp4: unreadable", "h264 (4), vp9 (1) in .mp4 (4), .webm (1)",
        "120 frames", "A step of the default (4 clips of 4 frames) takes 0.5 s, its 300 steps about 2.5 min",
        "1 video to validate on: too few", "Videos have several shapes", "30,720 of all frames here",
    ):  # fmt: skip
        assert text in ended.output, ended.output
    assert len(ended.output.splitlines()) <= 45, "one screen"
    assert sorted(path.name for path in videos.parent.iterdir()) == ["videos"], "it leaves nothing"


def test_programs_read_the_same_from_one_document(doctor: Asked, videos: Path) -> None:
    ended = doctor(videos, "--json")
    found = json.loads(ended.output)
    assert found["usable"] is True
    assert found["data"]["codecs"]["codecs"] == {"h264": 4, "vp9": 1}
    assert found["data"]["lengths"]["frames"] == 120
    assert found["data"]["keyframes"]["frames_apart"]["least"] == 12
    assert list(found["data"]["files"]["bad"]) == [str(videos / "notes.mp4")]
    assert found["machine"]["cores"]["cores"] >= 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "holds no file of a known kind"),
        (lambda root: (root.mkdir(), (root / "a.mp4").write_text("a")), "None of the 1 file in"),
    ],
)
def test_a_folder_that_cannot_be_used_ends_with_3(make: Any, said: str, doctor: Asked, tmp_path: Path) -> None:
    make(tmp_path / "videos")
    ended = doctor(tmp_path / "videos")
    assert ended.code == 3
    assert said in ended.paragraph
    assert ended.output.startswith("Machine\n")


def test_more_bad_files_than_a_run_allows_end_with_3_and_say_what_to_do(doctor: Asked, videos: Path) -> None:
    for n in range(4):
        (videos / f"bad {n}.mp4").write_text("")
    ended = doctor(videos, "--json")
    assert ended.code == 3
    found = json.loads(ended.output)
    assert found["usable"] is False
    assert found["change"][0].startswith("A run would end: 5 of 10 files are bad")


def test_a_folder_that_may_not_be_read_is_named(doctor: Asked, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def closed(path: Any = ".") -> Any:
        if Path(os.fspath(path)).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    name = "more"
    assert "1 folder cannot be entered" in doctor(videos).output
    name = "videos"
    ended = doctor(videos)
    assert (ended.code, ended.paragraph) == (3, f"{videos} cannot be read: Permission denied.")


def test_a_broken_machine_is_told_a_line_each(doctor: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_shared_memory(_: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", no_shared_memory, raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(os, "fsync", _refused)
    monkeypatch.setattr(machine, "MEMORY", tmp_path)  # a folder: that look fails as none foresaw
    ended = doctor()
    assert (ended.code, ended.error) == (0, "")
    lines = {line.split("  ")[1]: line for line in ended.output.splitlines() if line.startswith("  ")}
    assert "cannot be used: Function not implemented" in lines["shared memory"]
    assert "no C++ compiler is found" in lines["compile"]
    assert "not installed" in lines["wandb"]
    assert "runs cannot be kept" in lines["disk"]
    assert "cannot be told: " in lines["memory"]
    for text in ("data.workers=0", "logger=none", "run_dir=DIR"):
        assert text in ended.output.partition("What to change")[2]


def test_where_nothing_can_be_trained_that_is_said(doctor: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "speed", _refused)
    ended = doctor("anywhere")
    assert ended.code == 0
    assert "- Training does not work here: [Errno 30] Read-only file system" in ended.output


@pytest.mark.slow
def test_a_step_is_timed(doctor: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from tests.conftest import small_config

    timed = speed.speed(small_config(Path("nowhere")))
    assert timed.seconds > 0
    assert (timed.clips, timed.tokens, timed.steps) == (2, 16, 3)


def _refused(*_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")
