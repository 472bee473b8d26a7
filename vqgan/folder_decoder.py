"""Decoding a folder of tokens: a video each, or original and reconstruction side by side."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from vqgan.config import check_values
from vqgan.data.bad_files import UnusableError
from vqgan.data.video_file import scan_video
from vqgan.decoding import Decoding, Frames, decode_video, reconstructions, write_frames
from vqgan.distributed import this_process
from vqgan.encoding import Reading
from vqgan.errors import ConfigError, DataError, counted, storing
from vqgan.evaluation import psnr
from vqgan.frames import to_frames
from vqgan.inference import Work, placed
from vqgan.pretrained import Tokenizer
from vqgan.run_folder import replace_text
from vqgan.token_records import COMMON
from vqgan.tokens import Tokens, TokenVideo

DESCRIPTION = "decoding.json"  # in the folder of the videos
SMALLEST_SHOWN = 256  # pixels: lower frames are enlarged by a whole factor, so that a person can see them


@dataclass
class FolderDecoder:
    """Decodes a token folder, or the part of it that is this process's.

    Args:
        tokenizer: that encoded it.
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
        if manifest["tokenizer"] != self.tokenizer.sha256():
            raise ConfigError(f"{self.tokens.folder} was encoded by a tokenizer with other weights than this one's.")
        work = {"batch_frames": manifest["batch_frames"], "precision": manifest["precision"]}
        check_values(Work, work, "manifest")
        check_values(Reading, manifest["reading"], "manifest.reading")
        self.work, self.reading = Work(**work), Reading(**manifest["reading"])
        self.measured: list[float] = []  # PSNR of each frame that was shown beside its original, in dB

    def run(self) -> str:
        """Write what is not there yet; returns what was done, in a sentence.

        Raises:
            StorageError: a video cannot be written.
            DataError: the tokens are damaged, or an original is not what it was.
        """
        process = this_process()
        self._describe()
        placed(self.tokenizer, self.decoding.device)
        mine = range(process.rank, len(self.tokens), process.count)
        left = [index for index in mine if not self._target(self.tokens.paths[index]).exists()]
        for index in tqdm(left, unit="video", disable=None if process.rank == 0 else True):
            video: TokenVideo = self.tokens[index]
            target = self._target(video.path)
            if self.originals is None:
                decode_video(self.tokenizer, self.decoding, self.work, video, target)
            else:
                self._show(video, self.originals / video.path, target)
        already = len(mine) - len(left)
        mean = f", PSNR {np.mean(self.measured):.2f} dB on average over all frames" if self.measured else ""
        return f"{counted(len(left), 'video')} decoded{f', {already} already there' if already else ''}{mean}"

    def _describe(self) -> None:
        """Write down what the videos are of, or find that those that are there are of the same."""
        file = self.out / DESCRIPTION
        kind = {
            **{key: self.tokens.manifest[key] for key in COMMON},
            **{key: getattr(self.decoding, key) for key in ("size", "crf", "preset")},
            "side_by_side": self.originals is not None,
        }
        if not file.exists():
            with storing(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(kind, indent=1) + "\n")
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} is damaged ({error}). Choose another --out.") from None
        for key, value in kind.items():
            if before.get(key) != value:
                raise ConfigError(
                    f"{self.out} holds videos of another kind: {key} was {before.get(key)} and is {value}. "
                    "Choose another --out."
                )

    def _target(self, path: str) -> Path:
        file = self.out / path
        return file if file.suffix == ".mp4" else file.with_name(f"{file.name}.mp4")

    def _show(self, video: TokenVideo, original: Path, target: Path) -> None:
        pairs = self._pairs(video, original)
        first = next(pairs)  # its size is the video's
        height, width = first.shape[:2]
        write_frames(target, itertools.chain([first], pairs), (width, height), video, self.decoding)

    def _pairs(self, video: TokenVideo, original: Path) -> Iterator[UInt8[np.ndarray, "height width rgb"]]:
        try:
            source, _ = scan_video(original)
            if len(self.reading.positions(source)) != len(video.codes):
                raise UnusableError(f"{len(self.reading.positions(source))} frames instead of {len(video.codes)}")
            with closing(self.reading.open(source)) as stream:
                position = 0
                for reconstruction in reconstructions(self.tokenizer, self.work, video):
                    frames = self.reading.crop(stream.read(position, len(reconstruction)))
                    position += len(reconstruction)
                    yield from self._beside(frames, reconstruction)
        except (UnusableError, OSError) as error:
            raise DataError(f"{original} cannot be shown beside its reconstruction: {error}.") from None

    def _beside(self, originals: Frames, reconstructed: Frames) -> Iterator[UInt8[np.ndarray, "height2 width2 rgb"]]:
        left, right = (to_frames(torch.from_numpy(frames)[None]) for frames in (originals, reconstructed))
        for original, reconstruction, value in zip(originals, reconstructed, psnr(left, right).tolist()):
            self.measured.append(value)
            yield side_by_side(original, reconstruction, value)


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
