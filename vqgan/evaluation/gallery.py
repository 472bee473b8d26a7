"""Clips to be looked at: the same ones of every subject, without any subject knowing of the others."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image

from vqgan.evaluation.reconstructor import Reconstructed
from vqgan.frames import to_frames
from vqgan.measures import psnr

MOST_CLIPS = 12
MOST_FRAMES = 12  # of a clip, the first ones
WIDEST = 256  # pixels of a frame; larger ones are scaled down
QUALITY = 90  # of WebP


@dataclass(frozen=True)
class Shown:
    """A clip and what was made of it, as strips of frames from left to right."""

    source: str
    frames: int
    psnr: float  # dB, of the whole clip's frames on average
    original: str
    made: str


@dataclass
class Gallery:
    """The clips of one subject with the lowest hashes of their originals.

    That is a random sample, and the same for all subjects that were measured on the same frames: no matter how many
    clips there are, at most `MOST_CLIPS` are kept, and two subjects that lost different clips share the rest.
    """

    clips: dict[str, Shown] = field(default_factory=dict)  # by hash

    def add(self, found: Reconstructed) -> None:
        """Keep those of some clips that belong to the sample."""
        for i, path in enumerate(found.paths):
            original: UInt8[np.ndarray, "time height width rgb"] = found.originals[i].cpu().numpy()
            key = hashlib.sha256(original.tobytes()).hexdigest()
            if key in self.clips or (len(self.clips) == MOST_CLIPS and key > max(self.clips)):
                continue
            pair = (to_frames(clips[i : i + 1]) for clips in (found.originals, found.clips))
            self.clips[key] = Shown(
                path.name,
                min(len(original), MOST_FRAMES),
                float(psnr(*pair).mean()),
                _strip(original),
                _strip(found.clips[i].cpu().numpy()),
            )
            if len(self.clips) > MOST_CLIPS:
                del self.clips[max(self.clips)]


def _strip(clip: UInt8[np.ndarray, "time height width rgb"]) -> str:
    """Frames side by side, as the address of a picture."""
    frames = min(len(clip), MOST_FRAMES)
    picture = Image.fromarray(rearrange(clip[:frames], "t h w c -> h (t w) c"))
    if clip.shape[2] > WIDEST:
        height = max(1, clip.shape[1] * WIDEST // clip.shape[2])
        picture = picture.resize((WIDEST * frames, height), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
