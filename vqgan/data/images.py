"""Pictures from a folder tree, as clips of one frame."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vqgan.data.corpus import ClipDataset
from vqgan.data.decoded import MEGABYTE, Decoded
from vqgan.data.folder import Folder
from vqgan.data.reading.files import FileKind
from vqgan.errors import UnusableError
from vqgan.video.crop import augment, check_size

SUFFIXES = ".avif .bmp .gif .jp2 .jpeg .jpg .png .ppm .tif .tiff .webp"
MAX_PIXELS = 2**26
SIZE = struct.Struct("<II")  # in the index
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # of Exif, and what there exchanges width and height
# Floating-point pictures are from 0 to 1 or to 255, and beyond by a share of that, as scaling leaves it. Of the latter
# hardly anything would be seen if the brightest value were less than this: it may as well have another scale.
OVERSHOOT, DIMMEST = 0.25, 16
# What Pillow's readers raise over damaged files.
BROKEN = (
    OSError, RuntimeError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What a picture's header says: its size as it is displayed."""

    path: Path
    width: int
    height: int

    def pack(self) -> bytes:
        """All but the path."""
        return SIZE.pack(self.width, self.height)

    @classmethod
    def unpack(cls, path: Path, packed: bytes) -> ImageFile:
        """What was packed, of the file at `path`.

        Raises:
            ValueError: it is damaged.
        """
        if len(packed) != SIZE.size:
            raise ValueError(f"the index of {path} is damaged")
        return cls(path, *SIZE.unpack(packed))


def scan_image(path: Path) -> tuple[ImageFile, str | None]:
    """Read a picture's header.

    Raises:
        UnusableError: it is no picture, too small or too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableError(f"too large: {image.width}×{image.height}")
            check_size(image.width, image.height)
            width, height = image.size
            with contextlib.suppress(*BROKEN):
                # Not its own `getexif`: a PNG's reads all of the file for what may stand at its end.
                if Image.Image.getexif(image).get(ORIENTATION, 1) in LYING:
                    width, height = height, width
    except BROKEN as error:
        raise UnusableError(f"unreadable: {type(error).__name__}") from None
    return ImageFile(path, width, height), None


IMAGE_FILES = FileKind(
    name=f"images 2, Pillow {PIL.__version__}",
    suffixes=frozenset(SUFFIXES.split()),
    scan=scan_image,
    pack=ImageFile.pack,
    unpack=ImageFile.unpack,
)


@dataclass(kw_only=True)
class Images(Folder[ImageFile]):
    """A folder of pictures, in any format that Pillow reads; of animations the first frame.

    Pictures of floating-point numbers or 32-bit integers count from 0 to 1, 255 or 65535, whichever they keep to; those
    of another scale are left out.
    """

    kind = IMAGE_FILES

    def dataset(self, files: Sequence[ImageFile]) -> ClipDataset:
        """All pictures."""
        return ImageFolder(files, self.resolution, self.crop == "random", self.flip, self.decoded_megabytes)


class ImageFolder(ClipDataset):
    """Pictures, upright, the shorter side scaled to `resolution`, then cropped; transparency is dropped."""

    def __init__(
        self, files: Sequence[ImageFile], resolution: int, random_crop: bool, flip: bool, decoded_megabytes: int = 0
    ) -> None:
        self.files, self.resolution, self.random_crop, self.flip = files, resolution, random_crop, flip
        sizes = (self._scaled(file.width, file.height) for file in files)
        shapes = ((1, height, width, 3) for width, height in sizes)
        self.decoded = Decoded.if_they_fit(shapes, decoded_megabytes * MEGABYTE) if decoded_megabytes else None

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        return self.files[index].path

    @property
    def decoded_bytes(self) -> int:
        """See `ClipDataset.decoded_bytes`."""
        return 0 if self.decoded is None else self.decoded.size

    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        """Picture `index` as a clip of one frame; see `ClipDataset.read`."""
        if rng is not None and self.decoded is not None:
            pixels = self.decoded.take(index, lambda: self._decode(index))
        else:
            pixels = self._decode(index)
        return torch.from_numpy(augment(pixels, self.resolution, rng, self.random_crop, self.flip))

    def _decode(self, index: int) -> UInt8[np.ndarray, "1 h w 3"]:
        try:
            with Image.open(self.files[index].path) as stored:
                image = _to_rgb(ImageOps.exif_transpose(stored), stored.format == "TIFF")
        except BROKEN as error:
            raise UnusableError(f"decoding failed: {error}") from None
        return np.array(image.resize(self._scaled(*image.size), Image.Resampling.BICUBIC))[None]

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, the shorter one `resolution`."""
        scale = self.resolution / min(width, height)
        return max(self.resolution, round(width * scale)), max(self.resolution, round(height * scale))


def _to_rgb(image: Image.Image, is_tiff: bool) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and is_tiff):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    elif image.mode.startswith("I"):  # 16 bits, which `convert` would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # by way of its transparency, which else gives a warning
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_bytes(pixels: Float[np.ndarray, "h w"] | Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Numbers of which no file says what white is: it has to follow from them, or the picture is left out."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind != "f":
        if low >= 0 and high <= 65535:
            return (pixels if high <= 255 else pixels >> 8).astype(np.uint8)
    elif low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    elif low >= -OVERSHOOT * 255 and DIMMEST <= high <= (1 + OVERSHOOT) * 255:
        return pixels.clip(0, 255).astype(np.uint8)
    raise UnusableError(f"unknown scale: values from {low:g} to {high:g}")
