"""Videos of any length through a tokenizer of clips: one stream each, whatever it is cut into and whoever asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vqgan
import vqgan.tokens
from tests.support.clips import clip_folder, clip_tokenizer, clips
from tests.support.tokenizers import write_videos
from tests.unit.video.test_video_file import Recording
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Memory
from vqgan.errors import CheckpointError, ConfigError, DataError
from vqgan.frames import to_clips, to_frames
from vqgan.tokenizer.decode import decoding_with, reconstructions
from vqgan.tokenizer.decode_folder import FolderDecoder
from vqgan.tokenizer.encode import encoding_with
from vqgan.tokenizer.encode_folder import FolderEncoder
from vqgan.tokenizer.inference import InferenceSettings, Parts, reconstruct_in_parts
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.tokens.folder import Tokens
from vqgan.video.file import scan_video
from vqgan.video.reader import read_frames
from vqgan.video.writer import write_video

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
FRAMES = {"a.mp4": 21, "b.mp4": 7, "one.mp4": 1, "more/c.mp4": 34}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 4 frames to a code, videos, and their tokens, 8 frames at once."""
    folder = tmp_path_factory.mktemp("streams")
    tokenizer = clip_folder(folder / "tokenizer")
    (folder / "videos" / "more").mkdir(parents=True)
    for name, frames in FRAMES.items():
        Recording().write_numbers(folder / "videos", frames, 16, 24).rename(folder / "videos" / name)
    encode(tokenizer, folder / "videos", folder / "tokens")
    return folder


def encode(tokenizer: Tokenizer, videos: Path, out: Path, workers: int = 0, batch_frames: int = 8) -> Tokens:
    encoding = encoding_with({"batch_frames": batch_frames})
    encoding.workers, encoding.index, encoding.device = workers, None, "cpu"
    FolderEncoder(tokenizer, encoding, videos, out).run()
    return vqgan.tokens.open(out)


def frames_of(path: Path) -> Tensor:
    video, _ = scan_video(path)
    return to_frames(torch.from_numpy(read_frames(video, np.arange(len(video.pts)), 16, 8))[None])


def codes_of(tokenizer: Autoencoder, frames: Tensor, parts: Parts) -> Tensor:
    memory = Memory()
    found = [
        tokenizer.encode_next(frames[:, first : first + parts.length(first)], memory)
        for first in parts.firsts(frames.shape[1])
    ]
    return torch.cat(found, 1)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_any_number_of_frames_comes_back_and_none_that_was_made_up(k: int) -> None:
    tokenizer = clip_tokenizer(temporal_downsampling=k).eval()
    for count in range(1, 2 * k + 3):
        x = clips(count)
        codes = tokenizer.encode(x)
        assert codes.shape[1] == 1 + -(-(count - 1) // k)
        assert tokenizer.decode(codes, count).shape == x.shape
        assert tokenizer(x).reconstruction.shape == x.shape
        torch.testing.assert_close(tokenizer.decode(codes, count), tokenizer(x).reconstruction)
        whole = tokenizer.decode(codes)
        assert whole.shape[1] == 1 + k * (codes.shape[1] - 1)
        assert torch.equal(whole[:, :count], tokenizer.decode(codes, count))
        padded = torch.cat([x, x[:, -1:].expand(-1, whole.shape[1] - count, -1, -1, -1)], 1)
        assert torch.equal(tokenizer.encode(padded), codes)
    with pytest.raises(ValueError, match="stand for up to"):
        tokenizer.decode(codes, count + k)


def test_parts_of_a_stream_are_where_a_batch_of_codes_is_full() -> None:
    assert [*Parts(8, 4).firsts(21)] == [0, 5, 13]
    assert [Parts(8, 4).length(first) for first in (0, 5, 13)] == [5, 8, 8]
    assert [*Parts(8, 4).firsts(5)] == [0]
    assert [*Parts(4, 4).firsts(6)] == [0, 1, 5]
    for count in (1, 5, 40):
        assert [*Parts(8, 1).firsts(count)] == [*range(0, count, 8)], "for pictures as ever"
    with pytest.raises(ConfigError, match="batch_frames must be a multiple of 4"):
        Parts(6, 4)


def test_commands_and_python_give_the_same_codes_bit_for_bit(made: Path) -> None:
    tokenizer = vqgan.load(made / "tokenizer")
    tokens = vqgan.tokens.open(made / "tokens")
    assert tokens.manifest["temporal_downsampling"] == tokens.temporal_downsampling == 4
    assert tokens.paths == sorted(FRAMES)
    for video in tokens:
        alone = tokenizer.encode_video(made / "videos" / video.path, batch_frames=8)
        by_hand = codes_of(tokenizer, frames_of(made / "videos" / video.path), Parts(8, 4))[0]
        np.testing.assert_array_equal(alone.codes, video.codes)
        np.testing.assert_array_equal(by_hand, video.codes)
        assert (video.frames, alone.frames) == (FRAMES[video.path],) * 2
        assert len(video.seconds) == FRAMES[video.path]
        assert len(video.codes) == 1 + -(-(FRAMES[video.path] - 1) // 4)
    tokens.verify()


@pytest.mark.slow
def test_videos_that_take_turns_keep_to_their_own_memory(made: Path, tmp_path: Path) -> None:
    tokens = encode(vqgan.load(made / "tokenizer"), made / "videos", tmp_path / "tokens", workers=2)
    for video, expected in zip(tokens, vqgan.tokens.open(made / "tokens")):
        np.testing.assert_array_equal(video.codes, expected.codes)


def test_a_video_that_breaks_off_leaves_the_next_one_alone(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "videos", tmp_path / "videos")
    damaged = bytearray((tmp_path / "videos" / "more" / "c.mp4").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = bytes(400)
    (tmp_path / "videos" / "more" / "c.mp4").write_bytes(damaged)
    tokens = encode(vqgan.load(made / "tokenizer"), tmp_path / "videos", tmp_path / "tokens")
    expected = {video.path: video.codes for video in vqgan.tokens.open(made / "tokens")}
    assert tokens.paths == ["a.mp4", "b.mp4", "one.mp4"]
    for video in tokens:
        np.testing.assert_array_equal(video.codes, expected[video.path])


def test_decoding_gives_the_reconstruction_bit_for_bit_and_every_frame_once(made: Path, tmp_path: Path) -> None:
    tokenizer = vqgan.load(made / "tokenizer")
    for video in vqgan.tokens.open(made / "tokens"):
        frames = frames_of(made / "videos" / video.path)
        expected, codes = reconstruct_in_parts(tokenizer, frames, 8)
        np.testing.assert_array_equal(codes[0], video.codes)
        found = np.concatenate([*reconstructions(tokenizer, InferenceSettings(8, "fp32"), video)])
        np.testing.assert_array_equal(found, to_clips(expected)[0])
    FolderDecoder(tokenizer, decoding(), vqgan.tokens.open(made / "tokens"), tmp_path / "out", made / "videos").run()
    for name, frames_there in FRAMES.items():
        assert len(scan_video(tmp_path / "out" / name)[0].pts) == frames_there


def decoding() -> Any:
    values = decoding_with({})
    values.device = "cpu"
    return values


def test_other_parts_give_the_same_but_for_the_last_digits() -> None:
    encoder = clip_tokenizer().double().eval().encoder
    x = clips(21).double()
    whole = encoder(x)
    for batch in (4, 8, 12):
        memory, parts = Memory(), Parts(batch, 4)
        found = [encoder(x[:, first : first + parts.length(first)], memory) for first in parts.firsts(21)]
        torch.testing.assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-10)
    tokenizer = clip_tokenizer().eval()
    other = (codes_of(tokenizer, clips(21), Parts(4, 4)) != tokenizer.encode(clips(21))).float().mean()
    assert float(other) <= 1e-3


def test_what_is_kept_of_a_video_does_not_grow_with_it() -> None:
    tokenizer = clip_tokenizer().eval()

    def kept(count: int) -> list[int]:
        memory, parts, told = Memory(), Parts(4, 4), Memory()
        with torch.no_grad():
            for first in parts.firsts(count):
                codes = tokenizer.encode_next(clips(count)[:, first : first + parts.length(first)], memory)
                tokenizer.decode_next(codes, told)
        return [sum(value.untyped_storage().nbytes() for value in m.last.values()) for m in (memory, told)]

    assert kept(9) == kept(89)
    assert min(kept(9)) > 0


PEAKS = """
import sys, vqgan
def peak():  # of this process; what `getrusage` says begins at that of the one that started it
    print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")])
tokenizer = vqgan.load(sys.argv[1])
video = tokenizer.encode_video(sys.argv[2], batch_frames=8, resolution=64)
peak()
tokenizer.decode_video(video, sys.argv[2] + ".out.mp4")
peak()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_video_ten_times_as_long_takes_no_more_memory(made: Path, tmp_path: Path) -> None:
    """As frames of 64 pixels the longer one would be 30 MB more, as floats 110."""
    peaks = []
    for count in (250, 2500):
        levels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        write_video(tmp_path / f"{count}.mp4", levels.repeat(16, 1).repeat(16, 2), 25)
        command = [sys.executable, "-c", PEAKS, str(made / "tokenizer"), str(tmp_path / f"{count}.mp4")]
        done = subprocess.run(command, capture_output=True, text=True, env=HERE, check=True)
        peaks.append([int(line) for line in done.stdout.split()])
    for shorter, longer in zip(*peaks, strict=True):
        assert longer < 1.05 * shorter


def test_a_stream_goes_on_only_where_its_codes_are_full() -> None:
    tokenizer, memory = clip_tokenizer().eval(), Memory()
    tokenizer.encode_next(clips(5), memory)
    tokenizer.encode_next(clips(3), memory)
    with pytest.raises(ValueError, match=r"The part before was the last one: 8 frames are not 1 \+ 4·n"):
        tokenizer.encode_next(clips(4), memory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line | {"frames": 22}, r"6 times of codes for 22 frames, 4 to a code|not those of the frames"),
        (lambda line: line | {"frames": 0}, "6 times of codes for 0 frames"),
        (lambda line: line | {"frames": 10**9}, "6 times of codes for 1000000000 frames"),
        (lambda line: line | {"frames": None}, "not those of the frames"),
        (lambda line: line | {"shape": [21, *line["shape"][1:]]}, "21 times of codes for 21 frames, 4 to a code"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], message: str, made: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(made / "tokens", tmp_path / "tokens")
    (listed,) = folder.glob("*.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    changed = [change(line) if line["path"] == "a.mp4" else line for line in lines]
    listed.write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.raises(DataError, match=message):
        vqgan.tokens.open(folder)


def test_tokens_of_another_rate_are_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "tokens", tmp_path / "tokens")
    manifest = json.loads((folder / "manifest.json").read_text())
    for k, error in ((2, DataError), (0, ConfigError), (10**6, ConfigError), ("four", ConfigError)):
        (folder / "manifest.json").write_text(json.dumps({**manifest, "temporal_downsampling": k}))
        with pytest.raises(error):
            vqgan.tokens.open(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "batch_frames": 6}))
    with pytest.raises(ConfigError, match=r"manifest\.batch_frames must be a multiple of 4"):
        FolderDecoder(vqgan.load(made / "tokenizer"), decoding(), vqgan.tokens.open(folder), tmp_path / "out", None)
    pictures = clip_folder(tmp_path / "pictures", temporal_downsampling=1, temporal_resolutions=[])
    with pytest.raises(CheckpointError, match="times of codes for 21 frames"):
        [*reconstructions(pictures, InferenceSettings(8, "fp32"), vqgan.tokens.open(made / "tokens")[0])]


def test_clips_of_codes_leave_none_out(made: Path) -> None:
    tokens = vqgan.tokens.open(made / "tokens")
    assert len(tokens.clips(frames=3)) == 6 // 3 + 3 // 3 + 10 // 3 + 0
    with pytest.raises(ValueError, match="4 frames share"):
        tokens.clips(frames=2, stride=2)
    with pytest.raises(ConfigError, match="batch_frames must be a multiple of 4"):
        vqgan.load(made / "tokenizer").encode_video(made / "videos" / "a.mp4", batch_frames=6)


def test_uneven_times_odd_lengths_and_portraits_come_back_frame_for_frame(made: Path, tmp_path: Path) -> None:
    names = write_videos(tmp_path / "videos")
    tokenizer = vqgan.load(made / "tokenizer")
    tokens = encode(tokenizer, tmp_path / "videos", tmp_path / "tokens")
    assert tokens.paths == names
    FolderDecoder(tokenizer, decoding(), tokens, tmp_path / "out", None).run()
    for video in tokens:
        pts = scan_video(tmp_path / "videos" / video.path)[0].pts
        assert video.frames == len(pts)
        (written,) = (tmp_path / "out").glob(f"{video.path}*")
        assert len(scan_video(written)[0].pts) == len(pts)
