"""Pictures of originals above reconstructions as the page takes them: two strips of clips each, not too large."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from PIL import Image

from vqgan.files.reading import is_inside, number, read_object

T = TypeVar("T")
MOST_PIXELS = 2**25  # of a picture that is opened
WIDEST = 2048  # pixels of a strip; wider ones are scaled down
WIDEST_MOVING = 17 * 256  # of one with every frame of a clip
QUALITY = 85  # of WebP
LONGEST_SOURCE = 2000  # characters
SPREAD = 12  # evaluations shown, of all
BUDGET = 2_700_000  # bytes of all strips of a page, before base64 adds a third


class Comparison(TypedDict):
    """Clips side by side in one strip, once as they are and once reconstructed."""

    step: float | None
    clips: int
    original: int  # the number of a strip
    result: int


class Ranked(TypedDict):
    """One of the clips with the lowest or the highest PSNR."""

    clip: float | None  # its number among the validation clips
    source: str
    psnr: float | None


class Extreme(TypedDict):
    """The worst clips, or the best ones."""

    pictures: Comparison
    ranked: list[Ranked]


class Moving(TypedDict):
    """Every frame of a clip in one strip, and of its reconstruction in another."""

    original: int  # the number of a strip
    result: int
    frames: int
    clip: Ranked


class Moment(TypedDict):
    """The frame with the lowest PSNR of all, which is one of the first clip."""

    frame: float | None  # its number in the clip
    second: float | None  # in the file
    psnr: float | None


class Strips:
    """The pictures of a run.

    Args:
        folder: of the run.
        budget: bytes that they may take on the page; beyond it every second one is left out.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder, self.budget = folder, budget
        self.urls: list[str] = []  # what strips are numbers of
        self.known: dict[bytes, int] = {}  # the originals are the same at every evaluation
        self.size = 0

    def over_time(self, most: int) -> list[Comparison]:
        """The pictures of evaluations, evenly spread, with the first and the last."""
        files = sorted((self.folder / "reconstructions").glob("step-*.png"), key=_step)
        chosen = spread(files, most)
        found: dict[Path, Comparison] = {}
        # The last, the first, the middle, …: when room runs out, they are still spread.
        for file in dict.fromkeys(file for few in range(1, len(chosen) + 1) for file in spread(chosen, few)):
            comparison = self._compare(file) if self.size < self.budget else None
            if comparison is not None:
                found[file] = comparison
        return [found[file] for file in chosen if file in found]

    def extremes(self) -> dict[str, Extreme]:
        """`worst` and `best`, where a run has them."""
        ranking = read_object(self.folder, "reconstructions/ranking.json")
        found: dict[str, Extreme] = {}
        for name in ("worst", "best"):
            ranked = ranking.get(name)
            entries = [entry for entry in ranked if isinstance(entry, dict)] if isinstance(ranked, list) else []
            pictures = self._compare(self.folder / "reconstructions" / f"{name}.png") if entries else None
            if pictures is not None:
                pictures["step"] = number(ranking.get("step"))
                found[name] = {
                    "pictures": pictures,
                    "ranked": [_ranked(entry) for entry in entries[: pictures["clips"]]],
                }
        return found

    def moving(self) -> list[Moving]:
        """Clips with all their frames, the one with the worst moment first, in half of the room that there is."""
        described = read_object(self.folder, "reconstructions/ranking.json").get("moving")
        found: list[Moving] = []
        for place, entry in enumerate(described if isinstance(described, list) else []):
            if not isinstance(entry, dict) or (found and self.size > self.budget / 2):
                break
            strips = self._compare(self.folder / "reconstructions" / f"moving-{place}.webp", WIDEST_MOVING)
            if strips is None:
                break
            original, result = strips["original"], strips["result"]
            found.append({"original": original, "result": result, "frames": strips["clips"], "clip": _ranked(entry)})
        return found

    def moment(self) -> Moment | None:
        """The worst one; None where it is not known."""
        moment = read_object(self.folder, "reconstructions/ranking.json").get("moment")
        if not isinstance(moment, dict):
            return None
        frame, second, psnr = (number(moment.get(name)) for name in ("frame", "second", "psnr"))
        return {"frame": frame, "second": second, "psnr": psnr}

    def _compare(self, file: Path, widest: int = WIDEST) -> Comparison | None:
        picture = open_picture(self.folder, file)
        if picture is None:
            return None
        height = picture.height // 2
        clips = max(1, round(picture.width / height))  # frames are square
        original = self._add(picture.crop((0, 0, picture.width, height)), widest)
        result = self._add(picture.crop((0, height, picture.width, 2 * height)), widest)
        return {"step": _step(file), "clips": clips, "original": original, "result": result}

    def _add(self, strip: Image.Image, widest: int) -> int:
        if strip.width > widest:
            strip = strip.resize((widest, max(1, strip.height * widest // strip.width)), Image.Resampling.LANCZOS)
        pixels = strip.tobytes()
        if pixels not in self.known:
            content = io.BytesIO()
            strip.save(content, "WEBP", quality=QUALITY, method=2)
            self.size += len(content.getvalue())
            self.known[pixels] = len(self.urls)
            self.urls.append("data:image/webp;base64," + base64.b64encode(content.getvalue()).decode())
        return self.known[pixels]


def open_picture(folder: Path, file: Path) -> Image.Image | None:
    """A picture of two rows; None if the file is none, or too large."""
    if not is_inside(folder, file):
        return None
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(file, formats=["PNG", "WEBP"]) as picture,
        ):
            if picture.width * picture.height > MOST_PIXELS or picture.height < 2:
                return None
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[-1:])
    return [items[n * (len(items) - 1) // (most - 1)] for n in range(most)]


def _ranked(entry: dict[str, Any]) -> Ranked:
    source = str(entry.get("source", ""))[:LONGEST_SOURCE]
    return {"clip": number(entry.get("clip")), "source": source, "psnr": number(entry.get("psnr"))}


def _step(file: Path) -> float:
    digits = file.stem.removeprefix("step-")
    return float(digits) if digits.isdecimal() and len(digits) < 16 else -1.0
