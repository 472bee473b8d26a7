"""Decoding a folder of tokens: a video each, or original and reconstruction side by side."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from vqgan.config.build import check_values
from vqgan.data.reading.bad_files import ledger
from vqgan.errors import ConfigError, DataError, UnusableError, check
from vqgan.files.continued import go_on_with
from vqgan.files.lock import hold
from vqgan.files.state import differing, state_of, warn_of_touched
from vqgan.frames import to_frames
from vqgan.measures import psnr
from vqgan.runtime.process import this_process
from vqgan.text import counted
from vqgan.tokenizer.decode import Decoding, decode_video, reconstructions, write_frames
from vqgan.tokenizer.encode import is_cut_off
from vqgan.tokenizer.inference import InferenceSettings, move_to
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.tokens.folder import Tokens, TokenVideo
from vqgan.tokens.records import COMMON, MANIFEST
from vqgan.video.file import scan_video
from vqgan.video.times import Reading

DESCRIPTION = "decoding.json"  # in the folder of the videos
SMALLEST_SHOWN = 256  # pixels: lower frames are enlarged by a whole factor, so that a person can see them


@dataclass
class FolderDecoder:
    """Decodes a token folder, or the part of it that is this process's.

    Args:
        tokenizer: that encoded it, or one with another decoder for the same codes.
        decoding: how.
        tokens: the folder.
        out: where the videos are written, in the tree that they were encoded from; those that are there are left.
        originals: the folder of the videos, to show each beside its reconstruction; None for reconstructions alone.
    """

    tokenizer: Tokenizer
    decoding: Decoding
    tokens: Tokens
    out: Path
    originals: Path | None

    def __post_init__(self) -> None:
        manifest = self.tokens.manifest
        missing = [key for key in (*COMMON, "videos") if key not in manifest]
        if missing:
            raise ConfigError(f"{self.tokens.folder / MANIFEST} is damaged: it does not say {', '.join(missing)}.")
        self.weights = self.tokenizer.sha256()
        same = manifest["tokenizer"] == self.weights or manifest.get("codes") == self.tokenizer.sha256_of_codes()
        if not same:
            raise ConfigError(f"{self.tokens.folder} was encoded by a tokenizer with other weights than this one's.")
        work = {"batch_frames": manifest["batch_frames"], "precision": manifest["precision"]}
        check_values(InferenceSettings, work, "manifest")
        check_values(Reading, manifest["reading"], "manifest.reading")
        self.work, self.reading = InferenceSettings(**work), Reading(**manifest["reading"])
        check(self.work.batch_frames > 0, "manifest.batch_frames", self.work.batch_frames, "positive")
        step = self.tokenizer.downsampling.time
        fits = self.tokens.temporal_downsampling == step
        check(fits, "manifest.temporal_downsampling", self.tokens.temporal_downsampling, f"{step}, the tokenizer's")
        fits = self.work.batch_frames % step == 0
        check(fits, "manifest.batch_frames", self.work.batch_frames, f"a multiple of {step}")
        self.names = set(self.tokens.paths)
        self.measured: list[float] = []  # PSNR of each frame that was shown beside its original, in dB

    def run(self) -> str:
        """Write what is not there yet; returns what was done, in a sentence.

        Raises:
            ConfigError: the folder holds videos of another kind, or that are not from here.
            RunFolderInUseError: another process writes there.
            StorageError: a video cannot be written.
            DataError: the tokens are damaged, or no original can be shown.
        """
        process = this_process()
        move_to(self.tokenizer, self.decoding.device)
        with hold(self.out, process.rank):
            self._describe()
            bad_files = ledger(self.out, process)
            mine = range(process.rank, len(self.tokens), process.count)
            left = [index for index in mine if not self._target(self.tokens.paths[index]).exists()]
            others = self._others(left)
            for index in tqdm(left, unit="video", disable=None if process.rank == 0 else True):
                video: TokenVideo = self.tokens[index]
                target = self._target(video.path)
                if self.originals is None:
                    decode_video(self.tokenizer, self.decoding, self.work, video, target)
                    continue
                original = self.originals / video.path
                try:
                    if video.path in others:
                        raise UnusableError("another video: it has not the size of the file that was encoded")
                    self._show(video, original, target)
                except UnusableError as error:
                    bad_files.add(original, str(error))
        already, bad = len(mine) - len(left), len(bad_files.reasons)
        if bad and bad == len(mine) and process.count == 1:
            raise DataError(
                f"The {counted(bad, 'video')} of {self.originals} cannot be shown beside what was decoded "
                f"({bad_files.summary()}). They are listed in {bad_files.file}. If the originals are elsewhere, name "
                "their folder: --videos DIR."
            )
        against = "on average over all frames, against the originals at the tokenizer's size"
        mean = f", PSNR {np.mean(self.measured):.2f} dB {against}" if self.measured else ""
        there = f", {already} already there" if already else ""
        lost = f", {bad} cannot be shown beside the original ({bad_files.summary()})" if bad else ""
        return f"{counted(len(left) - bad, 'video')} decoded{there}{lost}{mean}"

    def _others(self, left: Sequence[int]) -> set[str]:
        """Of the originals that will be shown those that are other files than were encoded; what may be one is told."""
        if self.originals is None:
            return set()
        records = [self.tokens.records[index][0] for index in left]
        states = {record.path: state_of(self.originals / record.path) for record in records}
        others, touched = differing({record.path: record.state for record in records}, states)
        warn_of_touched(self.tokens.folder, touched, "name the folder of the originals, --videos DIR")
        return set(others)

    def _describe(self) -> None:
        """Write down what the videos are of, or find that those that are there are of the same."""
        file = self.out / DESCRIPTION
        originals = self.originals or Path(self.tokens.manifest["videos"])
        begun = file.exists() or not any(self._target(path).exists() for path in self.tokens.paths)
        # Of several processes another one may have begun while this one looked.
        if self.out.resolve() == originals.resolve() or not (begun or file.exists()):
            raise ConfigError(
                f"{self.out} holds videos of these names that vqgan decode has not written, perhaps the originals. "
                "Choose another --out."
            )
        kind = {
            **{key: self.tokens.manifest[key] for key in COMMON},
            "tokenizer": self.weights,
            **{key: getattr(self.decoding, key) for key in ("size", "crf", "preset")},
            "side_by_side": self.originals is not None,
        }
        go_on_with(file, kind, kind, "decode")

    def _target(self, path: str) -> Path:
        """The mp4 of a video, with `.mp4` after a name that ends otherwise, until it is no other video's name."""
        file, own = self.out / path, path
        while file.suffix != ".mp4" or (path != own and path in self.names):
            path = f"{path}.mp4"
            file = self.out / path
        return file

    def _show(self, video: TokenVideo, original: Path, target: Path) -> None:
        """Write both, side by side.

        Raises:
            UnusableError: the original cannot be read, or is not what was encoded.
        """
        measured: list[float] = []
        with closing(self._pairs(video, original, measured)) as pairs:
            first = next(pairs)  # its size is the video's
            height, width = first.shape[:2]
            write_frames(target, itertools.chain([first], pairs), (width, height), video, self.decoding)
        self.measured += measured

    def _pairs(
        self, video: TokenVideo, original: Path, measured: list[float]
    ) -> Generator[UInt8[np.ndarray, "height width rgb"], None, None]:
        try:
            source, complaint = scan_video(original)
            count, encoded = len(self.reading.positions(source)), video.frames
            if encoded > count or (encoded < count and not is_cut_off(complaint)):  # encoded as far as it goes
                raise UnusableError(f"another video: {count} frames instead of {encoded}")
            with closing(self.reading.open(source)) as stream:
                position = 0
                for reconstruction in reconstructions(self.tokenizer, self.work, video):
                    frames = self.reading.crop(stream.read(position, len(reconstruction)))
                    position += len(reconstruction)
                    left, right = (to_frames(torch.from_numpy(part)[None]) for part in (frames, reconstruction))
                    for pair in zip(frames, reconstruction, psnr(left, right)[0].tolist()):
                        measured.append(pair[-1])
                        yield side_by_side(*pair)
        except OSError as error:
            raise UnusableError(f"unreadable: {error.strerror or error}") from None


def side_by_side(
    original: UInt8[np.ndarray, "height width rgb"], reconstruction: UInt8[np.ndarray, "height width rgb"], value: float
) -> UInt8[np.ndarray, "height2 width2 rgb"]:
    """Both frames in one, with what they are and their PSNR in dB above."""
    factor = -(-SMALLEST_SHOWN // original.shape[0])
    pair = np.concatenate([original, reconstruction], axis=1).repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = pair.shape[:2]
    line = max(16, height // 16 // 2 * 2)
    page = Image.new("RGB", (width, height + line))
    page.paste(Image.fromarray(pair), (0, line))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(line * 0.7)
    draw.text((line // 4, line // 8), "original", font=font)
    draw.text((width // 2 + line // 4, line // 8), f"reconstruction  {value:.2f} dB", font=font)
    return np.asarray(page)
