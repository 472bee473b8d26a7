"""Videos to tokens and back, by the commands and in Python."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from filelock import FileLock

import vqgan
import vqgan.tokens
from tests.support.tokenizers import random_tokenizer, write_tokenizer, write_videos
from tests.unit.video.test_video_file import UNEVEN, Recording
from vqgan import commands
from vqgan.data.sharding import folder as folder_sharder
from vqgan.errors import DataError
from vqgan.frames import to_clips, to_frames
from vqgan.tokenizer import encode_folder as folder_encoder
from vqgan.tokens.folder import TokenVideo
from vqgan.video.file import scan_video
from vqgan.video.reader import read_frames
from vqgan.video.writer import VideoWriter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
VQGAN = "from vqgan.commands import main; main()"
QUICK = ("device=cpu", "workers=0", "index=null")

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """`vqgan ARGUMENTS` in `tmp_path`: exit code, output and error, without the seconds that a new process takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)  # what `main` sets is taken back

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, arguments)])
        capsys.readouterr()
        try:
            commands.main()
        except SystemExit as ended:
            return int(ended.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, videos, and their tokens."""
    folder = tmp_path_factory.mktemp("made")
    write_tokenizer(folder / "tokenizer")
    write_videos(folder / "videos")
    process = start("encode", folder / "tokenizer", folder / "videos", "--out", folder / "tokens", *QUICK)
    assert process.communicate(timeout=100)[0].startswith("5 videos encoded. ")
    return folder


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", VQGAN, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def content(folder: Path) -> dict[str, Any]:
    """The codes of each video as bytes, and what is said of it."""
    return {v.path: (v.codes.shape, v.codes.tobytes(), v.times.tolist(), v.width) for v in vqgan.tokens.open(folder)}


def all_frames(path: Path, resolution: int = 16, multiple: int = 2) -> torch.Tensor:
    video, _ = scan_video(path)
    return torch.from_numpy(read_frames(video, np.arange(len(video.pts)), resolution, multiple))


def test_codes_are_the_networks(made: Path) -> None:
    tokenizer = vqgan.load(made / "tokenizer")
    tokens = vqgan.tokens.open(made / "tokens")
    assert tokens.paths == ["a.mp4", "b.mkv", "more/a.mp4", "more/c.avi", "more/d.ts"]
    for video in tokens:
        frames = all_frames(made / "videos" / video.path)
        batches = [tokenizer.encode(to_frames(part[None]))[0] for part in frames.split(32)]
        np.testing.assert_array_equal(video.codes, torch.cat(batches))
        assert len(np.unique(video.codes)) > 5
    assert tokens[0].codes.dtype == np.uint16
    assert [video.codes.shape for video in tokens][:3] == [(21, 8, 11), (7, 11, 8), (40, 8, 24)]
    assert [(video.width, video.height) for video in tokens][:3] == [(64, 48), (48, 64), (96, 32)]
    tokens.verify()


def test_the_manifest_says_what_is_needed(made: Path) -> None:
    manifest = vqgan.tokens.open(made / "tokens").manifest
    assert manifest["tokenizer"] == vqgan.load(made / "tokenizer").sha256()
    assert manifest["codebook_size"] == 300
    assert manifest["reading"] == {"resolution": 16, "multiple": 2, "square": False, "stride": 1, "fps": None}
    assert manifest["environment"]["torch"] == torch.__version__


def test_in_python_it_is_the_same(made: Path) -> None:
    tokenizer = vqgan.load(made / "tokenizer")
    for video in vqgan.tokens.open(made / "tokens"):
        alone = tokenizer.encode_video(made / "videos" / video.path)
        np.testing.assert_array_equal(alone.codes, video.codes)
        np.testing.assert_array_equal(alone.times, video.times)
        assert (alone.time_base, alone.width, alone.height) == (video.time_base, video.width, video.height)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_writes_the_same(workers: int, made: Path, tmp_path: Path, typed: Typed) -> None:
    code, _, err = typed(
        "encode", made / "tokenizer", made / "videos", "--out", tmp_path / "tokens", *QUICK[::2], f"workers={workers}",
        "shard_megabytes=1",
    )  # fmt: skip
    assert code == 0, err
    assert content(tmp_path / "tokens") == content(made / "tokens")


def test_other_batches_give_the_same_codes_but_for_ties(made: Path) -> None:
    """A convolution's last bit may depend on the size of the batch, so equally near codes may change places."""
    tokenizer = vqgan.load(made / "tokenizer")
    path = made / "videos" / "more" / "a.mp4"
    whole = torch.from_numpy(tokenizer.encode_video(path, batch_frames=64).codes.astype(np.int64))
    with torch.no_grad():
        latents = tokenizer.quant_conv(tokenizer.encoder(to_frames(all_frames(path)[None]))[0])
        for size in (1, 7, 32):
            codes = torch.from_numpy(tokenizer.encode_video(path, batch_frames=size).codes.astype(np.int64))
            assert (codes != whole).float().mean() < 1e-3
            near, nearest = ((latents - tokenizer.quantizer.lookup(c)).square().sum(1) for c in (codes, whole))
            torch.testing.assert_close(near, nearest, rtol=1e-5, atol=1e-6)


def test_there_and_back_is_the_models_own_reconstruction_bit_for_bit(made: Path) -> None:
    tokenizer = vqgan.load(made / "tokenizer")
    for video in vqgan.tokens.open(made / "tokens"):
        for part, codes in zip(all_frames(made / "videos" / video.path).split(32), np.array_split(video.codes, [32])):
            expected = tokenizer(to_frames(part[None])).reconstruction[0]
            assert torch.equal(tokenizer.decode(torch.from_numpy(codes.astype(np.int64))), expected)


@pytest.mark.slow
def test_a_killed_encoding_goes_on_without_losing_or_repeating_a_video(made: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for copy in range(6):
        shutil.copytree(made / "videos", videos / str(copy))
    arguments = ("encode", made / "tokenizer", videos, "--out", tmp_path / "tokens", "device=cpu", "batch_frames=2")
    randomness, kills, seen = random.Random(0), 0, 0
    while True:
        process = start(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
        folder = tmp_path / "tokens"
        finished = len(vqgan.tokens.open(folder)) if (folder / "manifest.json").exists() else 0
        assert finished >= seen
        seen = finished
        while process.poll() is None:  # until some more videos are there
            now = len(vqgan.tokens.open(folder)) if (folder / "manifest.json").exists() else 0
            if kills < 4 and now > finished + randomness.randint(1, 5):
                process.kill()
            time.sleep(0.01)
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
    assert kills >= 2
    tokens = vqgan.tokens.open(folder)
    tokens.verify()
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == len(tokens) == 30, "each once"
    expected = content(made / "tokens")
    assert {(path.partition("/")[2], values) for path, values in content_as_text(folder).items()} == {
        (path, str(values)) for path, values in expected.items()
    }


def content_as_text(folder: Path) -> dict[str, str]:
    return {path: str(values) for path, values in content(folder).items()}


@pytest.mark.slow
def test_a_stopped_encoding_says_how_it_goes_on(made: Path, tmp_path: Path) -> None:
    for copy in range(20):
        shutil.copytree(made / "videos", tmp_path / "videos" / str(copy))
    arguments = (
        "encode",
        made / "tokenizer",
        tmp_path / "videos",
        "--out",
        tmp_path / "tokens",
        *QUICK,
        "batch_frames=1",
    )
    process = start(*arguments)
    while not list((tmp_path / "tokens").glob("*.bin")):
        time.sleep(0.01)
        assert process.poll() is None
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "The same command goes on" in err


@pytest.mark.slow
def test_several_processes_share_the_work(made: Path, tmp_path: Path) -> None:
    arguments = ("encode", made / "tokenizer", made / "videos", "--out", tmp_path / "tokens", *QUICK)
    processes = [start(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert said == ["process 0: 3 videos encoded\n", "process 1: 2 videos encoded\n"]
    assert content(tmp_path / "tokens") == content(made / "tokens")
    out, err = start(*arguments).communicate(timeout=100)
    assert out.startswith("0 videos encoded, 5 already there."), err


@pytest.mark.filterwarnings("always:.* is cut off")
def test_a_shard_that_is_cut_off_is_told_and_mended_by_the_same_command(
    made: Path, tmp_path: Path, typed: Typed
) -> None:
    """Version 0.1 left such ones where it was stopped in a bad moment, of whatever process."""
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    for file in (tmp_path / "tokens").glob("shard-000-*"):
        file.rename(file.with_name(file.name.replace("shard-000-00", "shard-003-01")))
    (shard,) = (tmp_path / "tokens").glob("*.bin")
    os.truncate(shard, shard.stat().st_size - 1)
    arguments = ("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK)
    code, out, err = typed(*arguments)
    assert (code, out.partition(".")[0]) == (0, "1 video encoded, 4 already there"), err
    assert "Warning: tokens/shard-003-01-00000.bin is cut off: it lacks 1 video of its list (the first: " in err
    assert content(tmp_path / "tokens") == content(made / "tokens")
    vqgan.tokens.open(tmp_path / "tokens").verify()
    assert typed(*arguments)[1].startswith("0 videos encoded, 5 already there. ")


def test_bad_videos_are_reported_and_the_others_encoded(made: Path, tmp_path: Path, typed: Typed) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(made / "videos", videos)
    (videos / "text.mp4").write_text("no video")
    damaged = bytearray((videos / "more" / "a.mp4").read_bytes())
    middle = len(damaged) // 3
    damaged[middle : middle + 400] = bytes(400)
    (videos / "damaged.mp4").write_bytes(damaged)
    for workers in (0, 2):
        out_folder = tmp_path / f"tokens{workers}"
        arguments = ("--out", out_folder, "index=null", f"workers={workers}", "batch_frames=4", "device=cpu")
        code, out, err = typed("encode", made / "tokenizer", videos, *arguments)
        assert code == 0, err
        assert out.startswith("5 videos encoded, 2 cannot be used"), out
        bad = [json.loads(line) for line in (out_folder / "bad_files.jsonl").read_text().splitlines()]
        assert {Path(entry["path"]).name for entry in bad} == {"text.mp4", "damaged.mp4"}
        assert vqgan.tokens.open(out_folder).paths == vqgan.tokens.open(made / "tokens").paths
        vqgan.tokens.open(out_folder).verify()


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (["stride=2"], (11, 8, 11)),
        (["fps=8"], (7, 8, 11)),
        (["square=true"], (21, 8, 8)),
        (["resolution=32"], (21, 16, 21)),
        (["precision=bf16"], (21, 8, 11)),
    ],
)
def test_how_videos_are_read_can_be_said(
    values: list[str], shape: tuple[int, ...], made: Path, tmp_path: Path, typed: Typed
) -> None:
    code, _, err = typed("encode", made / "tokenizer", made / "videos" / "a.mp4", "--out", "tokens", *QUICK, *values)
    assert code == 0, err
    (video,) = vqgan.tokens.open(tmp_path / "tokens")
    assert video.path == "a.mp4"
    assert video.codes.shape == shape
    assert video.fps == pytest.approx({"stride=2": 12, "fps=8": 8}.get(values[0], 24))
    if values == ["square=true"]:
        assert (video.width, video.height) == (48, 48)
    code, _, err = typed("decode", made / "tokenizer", "tokens", "--out", "videos", "device=cpu")
    assert code == 0, err
    again, _ = scan_video(tmp_path / "videos" / "a.mp4")
    assert len(again.pts) == shape[0]
    assert (again.width, again.height) == (video.width, video.height)


def test_videos_come_back_at_their_times_and_size(made: Path, tmp_path: Path, typed: Typed) -> None:
    code, out, err = typed("decode", made / "tokenizer", made / "tokens", "--out", "videos", "device=cpu", "crf=0")
    assert (code, out) == (0, "5 videos decoded. They are in videos.\n"), err
    for video in vqgan.tokens.open(made / "tokens"):
        name = video.path if video.path.endswith(".mp4") else f"{video.path}.mp4"
        original, _ = scan_video(made / "videos" / video.path)
        decoded, _ = scan_video(tmp_path / "videos" / name)
        np.testing.assert_allclose(decoded.seconds, original.seconds, atol=1e-3)
        assert decoded.displayed_size == original.displayed_size
    code, out, err = typed("decode", made / "tokenizer", made / "tokens", "--out", "videos", "device=cpu", "crf=0")
    assert out == "0 videos decoded, 5 already there. They are in videos.\n"


def test_uneven_times_come_back(tmp_path: Path) -> None:
    tokenizer = random_tokenizer()
    path = Recording(suffix="mkv", times=UNEVEN).write_numbers(tmp_path, len(UNEVEN))
    tokens = tokenizer.encode_video(path)
    tokenizer.decode_video(tokens, tmp_path / "again.mp4")
    again, _ = scan_video(tmp_path / "again.mp4")
    np.testing.assert_allclose(again.seconds * 1000, UNEVEN, atol=1)


@pytest.mark.parametrize("scale", [1_200_000, 10_000_000, 90_000])
def test_videos_of_a_fine_time_scale_keep_their_speed(scale: int, tmp_path: Path, typed: Typed) -> None:
    """Smooth Streaming and Media Foundation write ten million units of a second."""
    (tmp_path / "videos").mkdir()
    recording = Recording(times=UNEVEN, container_options={"video_track_timescale": str(scale)})
    path = recording.write_numbers(tmp_path, len(UNEVEN)).rename(tmp_path / "videos" / "fine.mp4")
    original, _ = scan_video(path)
    assert original.time_base == pytest.approx(1 / scale)
    tokenizer = random_tokenizer()
    tokenizer.decode_video(tokenizer.encode_video(path), tmp_path / "again.mp4")
    again, _ = scan_video(tmp_path / "again.mp4")
    np.testing.assert_allclose(again.seconds, original.seconds, atol=1e-6)
    assert typed("shard", "videos", "--out", "shards", *QUICK[1:], "clip_frames=50")[0] == 0
    (listed,) = (tmp_path / "shards").glob("shard-*.jsonl")
    assert json.loads(listed.read_text())["seconds"] == pytest.approx(original.seconds[-1], abs=1e-6)


def test_two_frames_within_a_microsecond_stay_two(tmp_path: Path) -> None:
    times = [0, 400, 401, 10**9]  # nanoseconds
    with VideoWriter(tmp_path / "a.mp4", 64, 48, Fraction(24), Fraction(1e-9), {}) as video:
        for time in times:
            video.add(np.full((48, 64, 3), 99, np.uint8), time)
    found, _ = scan_video(tmp_path / "a.mp4")
    np.testing.assert_allclose(found.seconds, [0, 1e-6, 2e-6, 1], atol=1e-7)


def test_a_size_that_x264_does_not_take_is_said(tmp_path: Path) -> None:
    video = TokenVideo("a.mp4", np.zeros((1, 8, 8), np.uint16), 0.04, np.arange(1), 17000, 1200)
    with pytest.raises(DataError, match=r"a.mp4 cannot be written: 17000×1200 pixels cannot be encoded .* size=model"):
        random_tokenizer().decode_video(video, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
    random_tokenizer().decode_video(video, tmp_path / "a.mp4", size="model")


def test_decoded_frames_are_the_networks(tmp_path: Path) -> None:
    """What stands in the file is what the network gives, but for x264's loss and the colours' half resolution."""
    tokenizer = random_tokenizer()
    path = Recording().write_numbers(tmp_path, 5)
    tokens = tokenizer.encode_video(path)
    tokenizer.decode_video(tokens, tmp_path / "again.mp4", size="model", crf=1)
    with torch.no_grad():
        expected = to_clips(tokenizer.decode(torch.from_numpy(tokens.codes.astype(np.int64)))[None])[0].double()
    found = all_frames(tmp_path / "again.mp4").double()
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert ((found - expected) @ luma).abs().mean() < 2


def test_side_by_side_shows_both_and_measures(made: Path, tmp_path: Path, typed: Typed) -> None:
    code, out, err = typed(
        "decode", made / "tokenizer", made / "tokens", "--out", "both", "--side-by-side", "device=cpu", "crf=1"
    )
    assert code == 0, err
    assert "dB on average over all frames" in out
    tokenizer = vqgan.load(made / "tokenizer")
    frames = all_frames(made / "videos" / "a.mp4")
    with torch.no_grad():
        reconstruction = to_clips(tokenizer(to_frames(frames[None])).reconstruction)[0]
    with av.open(str(tmp_path / "both" / "a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    assert len(shown) == len(frames)
    height, width = frames.shape[1] * 16, frames.shape[2] * 16
    picture = shown[3][-height:]
    assert picture.shape[1] == 2 * width
    for half, expected in ((picture[:, :width], frames[3]), (picture[:, width:], reconstruction[3])):
        small = half.reshape(frames.shape[1], 16, frames.shape[2], 16, 3).mean((1, 3))
        assert np.abs(small - expected.numpy()).mean() < 6
    assert shown[3][:-height].max() > 150, "there is text above"


def test_originals_that_were_moved_can_be_named(made: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(made / "videos", tmp_path / "videos")
    shutil.copytree(made / "tokenizer", tmp_path / "tokenizer")
    assert typed("encode", "tokenizer", "videos", "--out", "tokens", *QUICK)[0] == 0
    (tmp_path / "videos").rename(tmp_path / "moved")
    code, _, err = typed("decode", "tokenizer", "tokens", "--out", "both", "--side-by-side", "device=cpu")
    assert code == 3
    assert "cannot be shown beside" in err
    arguments = ("--out", "both", "--side-by-side", "--videos", "moved", "device=cpu")
    assert typed("decode", "tokenizer", "tokens", *arguments)[0] == 0


def test_a_video_that_is_cut_off_is_encoded_as_far_as_it_goes(made: Path, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "videos").mkdir()
    content = Recording(gop=1000, container_options={"movflags": "faststart"}).write_numbers(tmp_path, 40).read_bytes()
    (tmp_path / "videos" / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    for workers in (0, 1):
        out_folder = tmp_path / f"tokens{workers}"
        arguments = ("--out", out_folder, "index=null", f"workers={workers}", "batch_frames=4", "device=cpu")
        code, out, err = typed("encode", made / "tokenizer", tmp_path / "videos", *arguments)
        assert code == 0, err
        assert out.startswith("1 video encoded, 1 cut off, and used up to there. "), out
        (video,) = vqgan.tokens.open(out_folder)
        scanned, complaint = scan_video(tmp_path / "videos" / "cut.mp4")
        assert complaint is not None
        assert len(scanned.pts) - 2 <= len(video.codes) <= len(scanned.pts)
        assert len(video.times) == len(video.codes) > 8
        alone = vqgan.load(made / "tokenizer").encode_video(tmp_path / "videos" / "cut.mp4", batch_frames=4)
        np.testing.assert_array_equal(alone.codes, video.codes)
        np.testing.assert_array_equal(alone.times, video.times)
        (bad,) = (json.loads(line) for line in (out_folder / "bad_files.jsonl").read_text().splitlines())
        assert bad["reason"].startswith("truncated: ")


@pytest.mark.filterwarnings("always:.* changed at another time")
def test_originals_that_cannot_be_shown_are_named_and_the_others_shown(
    made: Path, tmp_path: Path, typed: Typed
) -> None:
    """One that is cut off is shown as far as it was encoded."""
    shutil.copytree(made / "videos", tmp_path / "videos")
    recording = Recording(gop=1000, container_options={"movflags": "faststart"})
    whole = recording.write_numbers(tmp_path, 40).read_bytes()
    (tmp_path / "videos" / "a cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    assert typed("encode", made / "tokenizer", "videos", "--out", "tokens", *QUICK)[0] == 0
    (tmp_path / "videos" / "b.mkv").unlink()
    (tmp_path / "videos" / "a.mp4").write_bytes(whole)
    arguments = ("decode", made / "tokenizer", "tokens", "--out", "both", "--side-by-side", "device=cpu")
    code, out, err = typed(*arguments)
    assert code == 0, err
    assert out.startswith(
        "4 videos decoded, 2 cannot be shown beside the original (1 another video, 1 unreadable), PSNR "
    )
    bad = [json.loads(line) for line in (tmp_path / "both" / "bad_files.jsonl").read_text().splitlines()]
    assert {row["path"] for row in bad} == {str(tmp_path / "videos" / name) for name in ("a.mp4", "b.mkv")}
    decoded = {path.name: path for path in (tmp_path / "both").rglob("*.mp4")}
    assert decoded.keys() == {"a cut.mp4", "a.mp4", "c.avi.mp4", "d.ts.mp4"}
    assert decoded["a.mp4"].parent.name == "more"
    (cut,) = (video for video in vqgan.tokens.open(tmp_path / "tokens") if video.path == "a cut.mp4")
    assert len(scan_video(decoded["a cut.mp4"])[0].pts) == len(cut.codes) < 40
    shutil.copyfile(made / "videos" / "b.mkv", tmp_path / "videos" / "b.mkv")  # now with another time of change
    code, out, err = typed(*arguments)
    assert "Warning: b.mkv changed at another time than what tokens was made of" in err
    assert out.startswith("1 video decoded, 4 already there, 1 cannot be shown beside the original (1 another video),")


def test_the_originals_are_not_decoded_to(made: Path, tmp_path: Path, typed: Typed) -> None:
    videos = Path(shutil.copytree(made / "videos", tmp_path / "videos"))
    before = {path: path.read_bytes() for path in videos.rglob("*.*")}
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    manifest = tmp_path / "tokens" / "manifest.json"
    for origin in (made / "videos", videos):  # the videos are where they were encoded, or have been moved
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "videos": str(origin)}))
        code, _, err = typed("decode", made / "tokenizer", "tokens", "--out", "videos", "device=cpu")
        assert (code, err.count("\n")) == (2, 1)
        assert "perhaps the originals. Choose another --out." in err
    assert {path: path.read_bytes() for path in videos.rglob("*.*") if path.name != ".lock-000"} == before


def test_two_that_decode_at_once_are_refused(made: Path, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock-000"):
        code, _, err = typed("decode", made / "tokenizer", made / "tokens", "--out", "out", "device=cpu")
    assert (code, "Another process writes" in err) == (6, True)


@pytest.mark.parametrize("key", ["tokenizer", "reading", "videos"])
def test_a_manifest_that_lacks_something_is_named(key: str, made: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    del manifest[key]
    (tmp_path / "tokens" / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = typed("decode", made / "tokenizer", "tokens", "--out", "out", "--side-by-side", "device=cpu")
    assert (code, f"manifest.json is damaged: it does not say {key}." in err) == (2, True)


@pytest.mark.parametrize("command", ["encode", "shard"])
def test_one_of_several_processes_with_bad_videos_alone_does_not_end_the_others(
    command: str, made: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / name).write_text("no video")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    start_of = {"encode": ("encode", made / "tokenizer"), "shard": ("shard",)}
    values = {"encode": QUICK, "shard": QUICK[1:]}
    code, out, err = typed(*start_of[command], "videos", "--out", "out", *values[command])
    assert code == 0, err
    assert out.startswith("process 1: ")
    assert "1 unreadable" in out


def test_videos_of_another_kind_are_not_taken_for_these(made: Path, tmp_path: Path, typed: Typed) -> None:
    arguments = ("decode", made / "tokenizer", made / "tokens", "--out", "videos", "device=cpu")
    assert typed(*arguments)[0] == 0
    for other, said in [(["--side-by-side"], "side_by_side was False"), (["crf=3"], "crf was 18 and is 3")]:
        code, _, err = typed(*arguments, *other)
        assert code == 2
        assert said in err


def test_videos_whose_names_differ_by_mp4_alone_are_both_decoded(made: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    (listed,) = (tmp_path / "tokens").glob("shard-*.jsonl")
    records = [json.loads(line) for line in listed.read_text().splitlines()[:2]]
    named = [{**record, "path": path} for record, path in zip(records, ["a.avi", "a.avi.mp4"])]
    listed.write_text("".join(json.dumps(record) + "\n" for record in named))
    arguments = ("decode", made / "tokenizer", "tokens", "--out", "videos", "device=cpu")
    assert typed(*arguments)[1].startswith("2 videos decoded. ")
    assert {path.name for path in (tmp_path / "videos").glob("a*")} == {"a.avi.mp4", "a.avi.mp4.mp4"}
    assert typed(*arguments)[1].startswith("0 videos decoded, 2 already there. ")


def test_another_tokenizer_or_another_way_is_refused(made: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    write_tokenizer(tmp_path / "other", seed=1)
    for arguments, said in [
        ((tmp_path / "other", made / "videos", "--out", "tokens", *QUICK), "tokenizer was"),
        ((made / "tokenizer", made / "videos", "--out", "tokens", *QUICK, "fps=8"), "fps was None and is 8"),
    ]:
        code, _, err = typed("encode", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
    code, _, err = typed("decode", tmp_path / "other", "tokens", "--out", "videos")
    assert code == 2
    assert "other weights" in err


def test_other_videos_of_the_same_names_are_not_taken_for_those_that_were_encoded(
    made: Path, tmp_path: Path, typed: Typed
) -> None:
    for command, arguments in [
        ("encode", ("encode", made / "tokenizer", "videos", "--out", "out-encode", *QUICK)),
        ("shard", ("shard", "videos", "--out", "out-shard", *QUICK[1:])),
    ]:
        videos, out_folder = tmp_path / "videos", tmp_path / f"out-{command}"
        shutil.copytree(made / "videos", videos)
        assert typed(*arguments)[0] == 0
        for name in ("a.mp4", "more/c.avi"):
            with (videos / name).open("ab") as file:
                file.write(bytes(8))
        code, _, err = typed(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        size = (videos / "a.mp4").stat().st_size
        assert f"a.mp4 had {size - 8:,} bytes then and has {size:,} now, and so it is with 1 more. Choose" in err
        for listed in out_folder.glob("shard-*.jsonl"):  # what the message says
            lines = listed.read_text().splitlines(keepends=True)
            listed.write_text("".join(line for line in lines if '"a.mp4"' not in line and "c.avi" not in line))
        code, out, err = typed(*arguments)
        assert code == 0, err
        assert "3 already there" in out or "those of 3 were there already" in out
        assert typed(*arguments)[0] == 0
        shutil.rmtree(videos)
    vqgan.tokens.open(tmp_path / "out-encode").verify()
    assert content(tmp_path / "out-encode") == content(made / "tokens")


@pytest.mark.filterwarnings("always:.* changed at another time")
def test_a_copied_folder_of_videos_goes_on_with_a_word(made: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    shutil.copytree(made / "videos", tmp_path / "videos")  # with the times of change
    arguments = ("encode", made / "tokenizer", "videos", "--out", "tokens", *QUICK)
    code, out, err = typed(*arguments)
    assert (code, out.partition(".")[0], "Warning" in err) == (0, "0 videos encoded, 5 already there", False)
    for name in ("b.mkv", "more/c.avi"):
        os.utime(tmp_path / "videos" / name, (0, 0))
    code, out, err = typed(*arguments)
    assert (code, out.partition(".")[0]) == (0, "0 videos encoded, 5 already there")
    assert "Warning: b.mkv and 1 more changed at another time than what tokens was made of, but the size is" in err


def test_a_folder_of_version_0_1_goes_on(made: Path, tmp_path: Path, typed: Typed) -> None:
    """Its lines do not say which file a video was, and its manifest says format 1."""
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    (listed,) = (tmp_path / "tokens").glob("shard-*.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    old = [{key: value for key, value in line.items() if not key.startswith("file_")} for line in lines]
    assert old != lines
    listed.write_text("".join(json.dumps(line) + "\n" for line in old[:3]))
    manifest = tmp_path / "tokens" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    assert len(vqgan.tokens.open(tmp_path / "tokens")) == 3
    code, out, err = typed("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK)
    assert (code, out.partition(".")[0]) == (0, "2 videos encoded, 3 already there"), err
    assert content(tmp_path / "tokens") == content(made / "tokens")
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [*old[:3], *lines[3:]]
    assert json.loads(manifest.read_text())["format"] == 2


def test_two_at_once_are_refused(made: Path, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "tokens").mkdir()
    with FileLock(tmp_path / "tokens" / ".lock-000"):
        code, _, err = typed("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK)
    assert code == 6
    assert "Another process" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fpss=3"], 2, "Did you mean 'fps'?"),
        (["fps=0"], 2, "fps must be positive"),
        (["resolution=15"], 2, "resolution must be a multiple of 2"),
        (["batch_frames=two"], 2, "batch_frames must be a whole number"),
        (["limits.seconds=0"], 2, "limits.seconds must be positive"),
        (["device=tpu"], 2, "device=tpu is not available"),
        (["+more=1"], 2, "only values that are there"),
        (["fps"], 2, "cannot be read as key=value"),
        (["fps.x=1"], 2, "Unknown key 'fps.x'"),
        (["data.workers=1"], 2, "Unknown key 'data.workers'. Did you mean 'workers'? Keys: batch_frames,"),
    ],
)
def test_what_is_typed_wrong_is_named(arguments: list[str], code: int, said: str, made: Path, typed: Typed) -> None:
    ended, _, err = typed("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK, *arguments)
    assert ended == code
    assert said in err
    assert err.count("\n") == 1, "one paragraph"


def test_what_is_not_there_is_said(made: Path, tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_text("no video")
    for videos, said in [
        ("nowhere", "is not a folder"),
        ("empty", "no file of a known kind"),
        ("bad", "None of the 1"),
    ]:
        code, _, err = typed("encode", made / "tokenizer", tmp_path / videos, "--out", "tokens", *QUICK)
        assert code == 3
        assert said in err
    code, _, err = typed("decode", made / "tokenizer", "nowhere", "--out", "videos")
    assert code == 2
    assert "no folder of tokens" in err


def test_a_full_disk_loses_no_finished_video(made: Path, tmp_path: Path, typed: Typed, monkeypatch: Any) -> None:
    from vqgan.tokens import writer as token_shards

    write = token_shards.write_all
    room = [1500]

    def limited(file: Any, content: bytes) -> None:
        room[0] -= len(content)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        write(file, content)

    with monkeypatch.context() as patched:
        patched.setattr(token_shards, "write_all", limited)
        code, _, err = typed("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK)
    assert code == 5
    assert "No space left" in err
    vqgan.tokens.open(tmp_path / "tokens").verify()
    assert typed("encode", made / "tokenizer", made / "videos", "--out", "tokens", *QUICK)[0] == 0
    assert content(tmp_path / "tokens") == content(made / "tokens")


@pytest.mark.slow
def test_real_videos_are_encoded_killed_and_decoded(real_videos: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    arguments = (
        "encode",
        tmp_path / "tokenizer",
        real_videos,
        "--out",
        tmp_path / "tokens",
        "device=cpu",
        "index=null",
    )
    process = start(*arguments)
    while len(list((tmp_path / "tokens").glob("*.jsonl"))) == 0:
        time.sleep(0.05)
        assert process.poll() is None
    process.kill()
    process.communicate()
    out, err = start(*arguments).communicate(timeout=250)
    assert "already there" in out, err
    tokenizer, tokens = vqgan.load(tmp_path / "tokenizer"), vqgan.tokens.open(tmp_path / "tokens")
    assert len(tokens) == len([p for p in real_videos.iterdir() if p.suffix in (".mp4", ".avi", ".mkv")])
    for video in tokens:
        alone = tokenizer.encode_video(real_videos / video.path)
        np.testing.assert_array_equal(alone.codes, video.codes)
    out, err = start("decode", tmp_path / "tokenizer", tmp_path / "tokens", "--out", tmp_path / "out").communicate(
        timeout=250
    )
    assert out.startswith(f"{len(tokens)} videos decoded"), err


@pytest.mark.parametrize("command", ["encode", "shard"])
def test_who_watches_the_reading_knows_which_file_is_read(
    command: str, made: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an outage of the storage would be taken for a fault of the videos that were being read."""
    module = {"encode": folder_encoder, "shard": folder_sharder}[command]
    original, files = module.read_jobs, []

    def watched(*arguments: Any, file_of: Callable[[int], Path], **others: Any) -> Any:
        files.extend(file_of(number) for number in range(2))
        return original(*arguments, file_of=file_of, **others)

    monkeypatch.setattr(module, "read_jobs", watched)
    tokenizer = [made / "tokenizer"] if command == "encode" else []
    quick = QUICK if command == "encode" else ("workers=0", "index=null", "resolution=16")
    assert typed(command, *tokenizer, made / "videos", "--out", tmp_path / "out", *quick)[0] == 0
    assert [file.is_file() for file in files] == [True, True]
