"""What version 0.1 wrote goes on: runs, sweeps, exports, tokens, shards and indices (`tests/made_by_0_1`)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest

import vqgan
from tests.integration.conftest import Ended
from tests.support.runs import rows
from vqgan.commands import main
from vqgan.data.reading import files as search
from vqgan.runs.status import status_of
from vqgan.tokens.folder import open as open_tokens

HERE = Path(__file__).resolve().parents[1] / "made_by_0_1"
OTHER_PACKAGES = "ignore:This run goes on, but no longer exactly:UserWarning"
pytestmark = pytest.mark.filterwarnings(OTHER_PACKAGES)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all of it, as the current folder."""
    shutil.copytree(HERE, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """`vqgan ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["vqgan", *arguments])
    main()


def test_a_run_that_was_stopped_goes_on_with_the_numbers_that_it_would_have_had(
    old: Path, typed: Callable[..., Ended]
) -> None:
    with pytest.warns(UserWarning, match="no longer exactly") as told:
        ended = typed("resume=run", "trainer.steps=12")
    assert ended.code == 0, ended.error
    assert "It goes on after step 4 of 12." in ended.output
    changed = str(told[0].message).partition("without a stop: ")[2].split("; ")  # software, and no key of a config
    assert "vqgan was 0.1.0" in changed[0]
    assert not any("." in text.partition(" was ")[0] for text in changed)
    expected = {row["step"]: row for row in map(json.loads, (old / "goes_on.jsonl").read_text().splitlines())}
    found = {row["step"]: row for row in rows(old / "run")}
    assert list(found) == list(range(13))
    for step, row in expected.items():
        # On another processor the last digits of sums differ, which steps then enlarge.
        assert {name: found[step][name] for name in row} == pytest.approx(row, rel=0.02, abs=0.02)
    status = status_of(old / "run")
    assert status is not None
    assert status.state == "finished"


def test_a_sweep_does_what_is_left_of_it(old: Path, typed: Callable[..., Ended]) -> None:
    fixed = (old / "sweep" / "1" / "overrides.yaml").read_text().splitlines()
    typed_then = [line.removeprefix("- ").strip("'") for line in fixed if not line.startswith("- model=")]
    ended = typed("-m", *typed_then, "model=emavq,vqmodel", "run_dir=sweep")
    assert ended.code == 2
    assert "backbone.latent_dim is now model.quantizer.latent_dim" in ended.error
    typed_then = [override.replace("backbone.latent_dim", "model.quantizer.latent_dim") for override in typed_then]
    ended = typed("-m", *typed_then, "model=emavq,vqmodel", "run_dir=sweep")
    assert ended.code == 0, ended.error
    assert "(finished before)" in ended.output
    assert "It goes on after step 5 of 6." in ended.output
    for _ in range(2):  # and again, when today's version has written down what it is made of
        ended = typed("-m", *typed_then, "model=emavq,vqmodel", "run_dir=sweep")
        assert ended.code == 0, ended.error
        assert ended.output.count("(finished before)") == 2
    ended = typed("-m", *typed_then, "model=emavq,vqmodel", "run_dir=sweep", "backbone=f8")
    assert ended.code == 2
    assert "backbone: tiny there, f8 here" in ended.error


def test_a_runs_own_command_goes_on_with_the_defaults_of_then(old: Path, typed: Callable[..., Ended]) -> None:
    fixed = [line.removeprefix("- ").strip("'") for line in (old / "run" / "overrides.yaml").read_text().splitlines()]
    typed_then = [override.replace("backbone.latent_dim", "model.quantizer.latent_dim") for override in fixed]
    with pytest.warns(UserWarning, match="no longer exactly"):
        ended = typed(*typed_then, "trainer.steps=12")
    assert ended.code == 0, ended.error
    assert "It goes on after step 4 of 12." in ended.output


def test_runs_are_compared_and_reported(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "compare", "sweep", "run")
    command(monkeypatch, "report", "run")
    assert (old / "run" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("folder", ["run", "export"])
def test_a_tokenizer_gives_the_codes_that_it_gave(old: Path, folder: str) -> None:
    tokens, tokenizer = open_tokens(old / "tokens"), vqgan.load(old / folder)
    assert tokens.paths == ["a.mp4", "b.mp4", "more/c.mp4"]
    for then in tokens:
        now = tokenizer.encode_video(old / "videos" / then.path, resolution=32)
        assert now.codes.shape == then.codes.shape == (12, 16, 16)
        assert (now.codes == then.codes).mean() > 0.99, "but for ties"


def test_a_token_folder_is_continued_and_decoded(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(
        monkeypatch, "encode", "export", "videos", "--out", "tokens", "index=null", "device=cpu", "workers=0",
        "resolution=32",
    )  # fmt: skip
    assert open_tokens(old / "tokens").paths == ["a.mp4", "b.mp4", "more/c.mp4", "more/d.mp4"]
    before = (old / "decoded" / "a.mp4").read_bytes()
    command(monkeypatch, "decode", "export", "tokens", "--out", "decoded", "device=cpu")
    assert (old / "decoded" / "a.mp4").read_bytes() == before
    assert (old / "decoded" / "more" / "d.mp4").stat().st_size > 1000


def test_a_shard_folder_is_continued_and_trained_from(
    old: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., Ended]
) -> None:
    command(
        monkeypatch, "shard", "videos", "--out", "shards", "index=null", "workers=0", "resolution=32", "clip_frames=4"
    )
    manifest = json.loads((old / "shards" / "manifest.json").read_text())
    assert (manifest["clips"], manifest["frames"]) == (12, 48)
    sizes = (
        "data.resolution=32",
        "backbone.resolution=32",
        "backbone.channels=4",
        "backbone.channel_multipliers=[1,2]",
    )
    ended = typed(
        "data=shards", "data.root=shards", *sizes, "trainer.device=cpu", "data.workers=0", "data.batch_size=2",
        "trainer.steps=1", "logger=none", "run_dir=new",
    )  # fmt: skip
    assert ended.code == 0, ended.error


def test_what_an_index_knows_is_not_looked_up_again(
    old: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., Ended]
) -> None:
    with sqlite3.connect(old / "index.sqlite") as index:
        for path, changed in index.execute("select path, changed from files").fetchall():
            here = old / "videos" / Path(os.fsdecode(path)).relative_to("/tmp/old/videos")
            os.utime(here, ns=(changed, changed))
            index.execute("update files set path = ? where path = ?", (os.fsencode(here), path))
        (kind,) = index.execute("select distinct kind from files").fetchone()
    index.close()
    if not kind.endswith(f"PyAV {av.__version__}"):
        pytest.skip("another PyAV may see files otherwise")

    unknown: list[Path] = []
    original = search._scan
    monkeypatch.setattr(search, "_scan", lambda files, *others: unknown.extend(files) or original(files, *others))
    assert typed("resume=run", "trainer.steps=5").code == 0
    assert unknown == []
