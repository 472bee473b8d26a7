"""How many codes some videos touch, beside as many of those that a tokenizer was trained on.

    vqgan encode RUN TRAIN --out TRAIN_TOKENS; vqgan encode RUN HELDOUT --out HELDOUT_TOKENS
    python bench/touched.py TRAIN_TOKENS HELDOUT_TOKENS [--draws 200]

Few videos show few things, so that they leave codes untouched however good the codebook is. What can be expected of
them is what random training videos touch: as many videos, with as many codes in all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from measure import table

import vqgan
from vqgan.tokens import Tokens

Codes = Int[np.ndarray, "times positions"]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", metavar="TRAIN_TOKENS", type=Path)
    parser.add_argument("heldout", metavar="HELDOUT_TOKENS", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    args = parser.parse_args()
    train, heldout = (vqgan.tokens.open(folder) for folder in (args.train, args.heldout))
    known, new = codes_of(train), codes_of(heldout)
    size = sum(codes.size for codes in new)
    if sum(sorted(codes.size for codes in known)[-len(new) :]) < size:
        parser.error("so few videos of training have fewer codes than those held out")
    rng = np.random.default_rng(0)
    drawn = [like(known, len(new), size, rng) for _ in range(args.draws)]
    shares = [touched(some, train.codebook_size) for some in drawn]
    low, high = np.percentile(shares, [2.5, 97.5])
    of_new, of_known = (f"{touched(videos, train.codebook_size):.1%}" for videos in (new, known))
    rows = [
        ["held out", len(new), size, of_new],
        ["as many of training", len(new), size, f"{np.mean(shares):.1%} [{low:.1%}, {high:.1%}]"],
        ["all of training", len(known), sum(codes.size for codes in known), of_known],
    ]
    print(table(["videos", "how many", "codes in all", f"of {train.codebook_size} touched"], rows))


def codes_of(tokens: Tokens) -> list[Codes]:
    """Of each video."""
    return [np.asarray(video.codes).reshape(len(video.codes), -1) for video in tokens]


def like(videos: Sequence[Codes], count: int, size: int, rng: np.random.Generator) -> list[Codes]:
    """Random videos, so many, of each an equal share of its times so that there are `size` codes in all.

    Videos are drawn anew where they have fewer.
    """
    while True:
        some = [videos[number] for number in rng.permutation(len(videos))[:count]]
        share = size / sum(codes.size for codes in some)
        if share <= 1:
            return [codes[rng.permutation(len(codes))[: round(share * len(codes))]] for codes in some]


def touched(videos: Sequence[Codes], codebook_size: int) -> float:
    """The share of all codes that are in them."""
    return len(np.unique(np.concatenate([codes.reshape(-1) for codes in videos]))) / codebook_size


if __name__ == "__main__":
    main()
