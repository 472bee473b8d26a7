"""Small videos with motion, texture and colour, made once: the demo's data, without a download."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vqgan.data.videos import Videos
from vqgan.errors import ConfigError, StorageError, check
from vqgan.video.writer import write_video

VERSION = 2  # of what is drawn: another picture goes to another folder
OURS = re.compile(r"v\d+-\d+x\d+-\d+px|tmp[a-z0-9_]{8}")  # what is made here; the latter by a 0.1 that was killed
FPS = 24
SHAPES = 3
PALETTE = np.array([  # few enough colours to be learned in minutes, spread over the cube
    [0.90, 0.22, 0.21], [0.98, 0.75, 0.18], [0.26, 0.63, 0.28], [0.12, 0.53, 0.90],
    [0.56, 0.14, 0.67], [0.96, 0.96, 0.94], [0.13, 0.15, 0.19], [0.10, 0.74, 0.71],
])  # fmt: skip


@dataclass(kw_only=True)
class SyntheticVideos(Videos):
    """Videos of shapes that drift and turn before a moving pattern, written as real mp4 files.

    Args:
        root: a folder for them, `~` allowed; made at first use, kept, and shared by all runs with the same numbers.
            Nothing is written to one that holds anything else.
        videos: how many.
        video_frames: frames of each.

    Raises:
        ConfigError: `root` holds other files, and not these videos.
        StorageError: they cannot be written.
    """

    videos: int
    video_frames: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.videos > 1, "videos", self.videos, "at least 2")
        check(self.video_frames >= self.clip_frames, "video_frames", self.video_frames, "at least clip_frames")
        check(self.resolution % 2 == 0, "resolution", self.resolution, "even")  # h264's chroma has half the pixels
        name = f"v{VERSION}-{self.videos}x{self.video_frames}-{self.resolution}px"
        folder = Path(self.root).expanduser() / name
        self.root = str(folder)
        if not folder.is_dir():
            _refuse_others(folder.parent)
            self._make(folder)

    @classmethod
    def reads(cls) -> frozenset[str]:
        """Nothing that was there before."""
        return frozenset()

    def _make(self, folder: Path) -> None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as unfinished:
                for number in range(self.videos):
                    write_video(
                        Path(unfinished) / f"{number:03d}.mp4",
                        draw_video(number, self.video_frames, self.resolution),
                        FPS,
                    )
                made = Path(unfinished) / "made"
                made.mkdir()
                for file in Path(unfinished).glob("*.mp4"):
                    file.rename(made / file.name)
                try:
                    made.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else another run was quicker, with the same videos
                        raise
        except OSError as error:
            raise StorageError(
                f"The synthetic videos cannot be written to data.root={folder}: {error.strerror or error}."
            ) from None


def _refuse_others(root: Path) -> None:
    """A folder of the user's videos is no place for drawn ones, which the next run would take for more of them."""
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    others = sorted(name for name in names if not name.startswith(".") and not OURS.fullmatch(name))
    if others:
        raise ConfigError(
            f"data.root={root} holds {others[0]}, and synthetic videos are only written to a folder of their own. To "
            "train on the files that are there, type data=videos (data=images for pictures, data=shards for what vqgan "
            "shard wrote); for synthetic videos leave data.root out, or name an empty folder."
        )


def draw_video(seed: int, frames: int, side: int) -> UInt8[np.ndarray, "time h w 3"]:
    """One video as a function of its seed: a drifting two-colour wave, and shapes with stripes that move and turn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    time = np.arange(frames)[:, None, None] / FPS
    direction, phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(1, 3)
    across = np.cos(direction) * x + np.sin(direction) * y
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (waves * across - rng.uniform(0.2, 0.8) * time) + phase)
    video = _mix(wave, *_two_colours(rng))
    for _ in range(SHAPES):
        video = _with_shape(video, rng, x, y, time)
    return (255 * video.clip(0, 1)).round().astype(np.uint8)


def _with_shape(
    video: Float[np.ndarray, "time h w 3"], rng: np.random.Generator,
    x: Float[np.ndarray, "h w"], y: Float[np.ndarray, "h w"], time: Float[np.ndarray, "time 1 1"],
) -> Float[np.ndarray, "time h w 3"]:  # fmt: skip
    centre = [0.5 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time + rng.uniform(0, 2 * np.pi)) for _ in "xy"]
    angle = rng.uniform(-3, 3) * time + rng.uniform(0, 2 * np.pi)
    dx, dy = x - centre[0], y - centre[1]
    u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    radius = rng.uniform(0.15, 0.3)
    distance = np.hypot(u, v) if rng.random() < 0.5 else np.maximum(abs(u), abs(v))  # a disc or a square
    outside = np.minimum((distance - radius) * 4 * len(x), 700)  # of which the exponential is a number
    inside = 1 / (1 + np.exp(outside))  # an edge about a pixel wide
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * u / radius * rng.integers(1, 3))
    colours = _mix(stripes, *_two_colours(rng))
    return video + inside[..., None] * (colours - video)


def _two_colours(rng: np.random.Generator) -> Float[np.ndarray, "2 3"]:
    return PALETTE[rng.choice(len(PALETTE), 2, replace=False)]


def _mix(
    share: Float[np.ndarray, "time h w"], a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "time h w 3"]:
    return a + share[..., None] * (b - a)
