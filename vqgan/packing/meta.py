"""What a pack says of itself, for whoever trains on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from vqgan.packing.layout import Layout
from vqgan.packing.plan import Packing, Split, fingerprint, settings_of
from vqgan.tokens.folder import Tokens

FORMAT = 1
MADE_OF = ("format", "kind", "source", "tokenizer", "settings", "layout", "side", "codebook")  # may not change


def common(
    tokens: Tokens, packing: Packing, layout: Layout, kind: str, side: Mapping[str, Any] | None, has_codebook: bool
) -> dict[str, Any]:
    """What all splits have in common."""
    padded = -(-layout.vocabulary // packing.pad_to) * packing.pad_to
    return {
        "format": FORMAT,
        "kind": kind,
        "dtype": np.dtype(layout.dtype).newbyteorder("=").name,
        "order": layout.order,
        "codebook_size": layout.codebook_size,
        "depth": layout.depth,
        "bases": list(layout.bases),
        "special_tokens": layout.special,
        "vocabulary": layout.vocabulary,
        "padded_vocabulary": padded,
        "temporal_downsampling": tokens.temporal_downsampling,
        "tokenizer": tokens.manifest.get("tokenizer"),
        "codebook": "codebook.npy" if has_codebook else None,
        "side": side,
        "source": fingerprint(tokens),
        "settings": settings_of(packing),
        "layout": {**asdict(layout), "bases": list(layout.bases)},
    }


def of_split(tokens: Tokens, split: Split) -> dict[str, Any]:
    """What is of one split: how many of what, and how fast; `shapes` are those of the documents' codes."""
    shapes = [[span.times, *tokens.records[span.video][0].shape[1:]] for span in split.spans]
    frames = sum(span.frames for span in split.spans)
    seconds = sum(span.frames / tokens.records[span.video][0].fps for span in split.spans)
    total = int(split.offsets[-1])
    return {
        "split": split.name,
        "documents": len(split.spans),
        "tokens": total,
        "frames": frames,
        "frames_per_second": frames / seconds,
        "tokens_per_frame": total / frames,
        "tokens_per_second": total / seconds,
        "shapes": shapes,
    }


def document_lines(tokens: Tokens, split: Split) -> Iterator[dict[str, Any]]:
    """A line for each document: what of which video it is."""
    for span, length in zip(split.spans, np.diff(split.offsets).tolist()):
        record, _ = tokens.records[span.video]
        yield {
            "path": record.path,
            "first": span.first,
            "shape": [span.times, *record.shape[1:]],
            "first_frame": span.first_frame,
            "frames": span.frames,
            "frames_of_video": record.length,
            "fps": record.fps,
            "tokens": length,
        }
