"""What vqgan wrote is never taken for data, wherever it lies, and what it draws never comes among the user's files."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Compose
from tests.support.runs import digest
from tests.unit.data.test_synthetic import contents
from vqgan.commands import main
from vqgan.data.images import IMAGE_FILES
from vqgan.data.reading.files import find_files
from vqgan.data.reading.own_folders import DECODED, is_own
from vqgan.data.synthetic import draw_video
from vqgan.data.videos import VIDEO_FILES
from vqgan.errors import ConfigError, DataError
from vqgan.tokenizer.decode_folder import DESCRIPTION
from vqgan.training.run import run
from vqgan.video.writer import write_video

pytestmark = pytest.mark.slow

EVERY = "trainer.evaluate_every=1"  # else a run that goes on has been evaluated more often
LEFT_OUT = "since vqgan wrote it: "


def make_videos(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        write_video(folder / f"{number}.mp4", draw_video(number, 8, 32), 24)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("made") / "videos")


@pytest.fixture
def videos(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "videos"))


def values(root: Path, run_dir: Path, *others: str) -> list[str]:
    return [
        "data=videos",
        f"data.root={root}",
        "data.index=null",
        "data.clip_frames=2",
        f"run_dir={run_dir}",
        EVERY,
        *others,
    ]


def test_runs_below_their_data_train_on_the_same_and_go_on(composed: Compose, videos: Path, tmp_path: Path) -> None:
    whole = run(composed(*values(videos, tmp_path / "elsewhere", "trainer.steps=2")))
    used = whole.provenance.data
    first = videos / "runs" / "first"
    with pytest.warns(UserWarning, match=f"^Left out of {videos}, {LEFT_OUT}1 folder, {first}"):
        assert run(composed(*values(videos, first, "trainer.steps=1"))).provenance.data == used
    assert list(first.rglob("*.mp4"))
    with pytest.warns(UserWarning, match=f"{LEFT_OUT}2 folders, "):
        assert run(composed(*values(videos, videos / "runs" / "second", "trainer.steps=1"))).provenance.data == used
    with pytest.warns(UserWarning, match=LEFT_OUT):
        run(composed(*values(videos, first, "trainer.steps=2")))
    assert digest(first) == digest(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "names",
    [
        ["config.yaml", "overrides.yaml"],  # of a run that was killed soon
        ["environment.json", "metrics.jsonl", "bad_files.jsonl"],  # of one that 0.1 took its config from
        [DESCRIPTION],
    ],
)
def test_pictures_and_videos_of_ours_are_left_out(names: list[str], videos: Path) -> None:
    own = videos / "deep" / "own"
    make_videos(own / "reconstructions", 1)
    Image.new("RGB", (32, 32)).save(own / "reconstructions" / "picture.png")
    Image.new("RGB", (32, 32)).save(videos / "mine.png")
    for name in names:
        (own / name).touch()
    with pytest.warns(UserWarning, match=f"^Left out of {videos}, {LEFT_OUT}1 folder, {own}"):
        assert find_files(videos, "data.root", VIDEO_FILES.suffixes) == [videos / f"{n}.mp4" for n in range(4)]
    with pytest.warns(UserWarning, match=LEFT_OUT):
        assert find_files(videos, "data.root", IMAGE_FILES.suffixes) == [videos / "mine.png"]
    with pytest.raises(DataError, match=f"data.root={own.parent} holds no file .* but what vqgan wrote in {own}"):
        find_files(own.parent, "data.root", VIDEO_FILES.suffixes)


def test_decoded_videos_are_data_where_their_folder_is_named(videos: Path) -> None:
    assert is_own({DESCRIPTION, "a.mp4"})
    assert {DESCRIPTION} == DECODED
    (videos / DESCRIPTION).touch()
    assert len(find_files(videos, "data.root", VIDEO_FILES.suffixes)) == 4


COMMANDS = ["encode RUN VIDEOS", "decode RUN TOKENS", "export RUN", "pack TOKENS", "shard VIDEOS"]


@pytest.mark.parametrize("typed", COMMANDS)
def test_no_command_writes_into_the_folder_of_a_run(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.yaml", "overrides.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setattr("sys.argv", ["vqgan", *typed.split(), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ConfigError.exit_code
    assert capsys.readouterr().err.startswith(f"--out {tmp_path} is the folder of a run")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_search_looks_at_no_file(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a large tree would take long")

    looked, stat = set(), Path.stat
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", lambda path, **how: (looked.add(path), stat(path, **how))[1])
    assert len(find_files(videos, "data.root", VIDEO_FILES.suffixes)) == 4
    assert not looked & {videos / f"{n}.mp4" for n in range(4)}


def around(videos: Path) -> Path:
    return videos.parent


def same(videos: Path) -> Path:
    return videos


@pytest.mark.parametrize("key", ["data.root", "data.val_root"])
@pytest.mark.parametrize(("place", "said"), [(around, "is around"), (same, "is also")])
def test_a_run_in_or_around_its_data_is_refused(
    composed: Compose, videos: Path, tmp_path: Path, place: Callable[[Path], Path], said: str, key: str
) -> None:
    root = videos if key == "data.root" else make_videos(tmp_path.parent / f"{tmp_path.name} others", 2)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=rf"^run_dir={place(videos)} {said} {key}={videos}: .*{key}=NEW") as error:
        run(composed(*values(root, place(videos)), *([f"data.val_root={videos}"] if key == "data.val_root" else [])))
    assert error.value.exit_code == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize("key", ["data.root", "data.val_root"])
@pytest.mark.parametrize(("below", "said"), [(".", "is"), ("reconstructions", r"lies in .*/old,")])
def test_the_folder_of_a_run_is_refused_as_data(
    composed: Compose, videos: Path, tmp_path: Path, below: str, said: str, key: str
) -> None:
    make_videos(tmp_path / "old" / "reconstructions", 2)
    for name in ("config.yaml", "overrides.yaml"):
        (tmp_path / "old" / name).touch()
    named = tmp_path / "old" / below
    roots = {"data.root": videos, key: named}
    with pytest.raises(ConfigError, match=rf"^{key}={named} {said} the folder of a run.* {key}=NEW") as error:
        run(composed(*values(videos, tmp_path / "new", *(f"{key}={root}" for key, root in roots.items()))))
    assert error.value.exit_code == 2
    assert not (tmp_path / "new").exists()


# Synthetic videos


def test_synthetic_videos_are_never_written_among_others(composed: Compose, videos: Path, tmp_path: Path) -> None:
    before = contents(videos)
    with pytest.raises(ConfigError, match=rf"^data.root={videos} holds 0.mp4, .*data=videos") as error:
        run(composed("data=synthetic", f"data.root={videos}"))
    assert error.value.exit_code == 2
    assert contents(videos) == before
    assert not (tmp_path / "run").exists()


def test_synthetic_videos_of_before_are_used_and_more_are_added(composed: Compose, tmp_path: Path) -> None:
    root = tmp_path / "synthetic"
    small = ["data=synthetic", f"data.root={root}", "data.video_frames=4", "trainer.steps=1"]
    run(composed(*small, "data.videos=3"))
    before = contents(root)
    (root / "tmpab_1c2de").mkdir()  # what 0.1 left when it was killed
    run(composed(*small, "data.videos=4", f"run_dir={tmp_path / 'more'}"))
    (root / "mine.txt").touch()
    run(composed(*small, "data.videos=3", f"run_dir={tmp_path / 'again'}"))
    assert contents(root).items() > before.items()
    with pytest.raises(ConfigError, match=r"holds mine.txt"):
        run(composed(*small, "data.videos=5", f"run_dir={tmp_path / 'refused'}"))


# Validation


def test_validation_on_what_is_trained_on_is_said(
    composed: Compose, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = videos / "one"
    one.mkdir()
    (videos / "0.mp4").rename(one / "0.mp4")
    with pytest.warns(UserWarning, match=rf"^data.root={one} has a single video .*data.val_root=DIR"):
        run(composed(*values(one, tmp_path / "single", "trainer.steps=1")))
    assert "clips       4 for training, 2 clips of the same video to validate on" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(composed(*values(videos, tmp_path / "several", "trainer.steps=1")))
        assert "for training, 2 clips of 1 video to validate on" in capsys.readouterr().out
