"""Draws docs/codes.svg: what codes are to each quantizer, in two dimensions, by the quantizers themselves.

python docs/codes.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from vqgan.quantizers import (
    BinarySphericalQuantizer,
    CosineEMAQuantizer,
    EMAQuantizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    Quantizer,
)

SIDE, MARGIN, REACH, TITLE = 190, 12, 2.2, 34  # pixels; what lies beyond REACH is not drawn
STEPS, CODES = 60, 48
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"
 font-size="11">
<style>
.z {{ fill: none; stroke: #b9c0c8; stroke-width: 2.4; stroke-linecap: round }}
.used {{ fill: #06c; stroke: #fff; stroke-width: .6 }}
.idle {{ fill: none; stroke: #d33; stroke-width: 1.2 }}
.frame {{ fill: none; stroke: #ddd }}
.title {{ font-weight: bold }}
</style>
<rect width="{width}" height="{height}" fill="#fff"/>
"""


def latents() -> Tensor:
    """(n, 2, 1, 1): a few clusters and an arc."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(320, 2, generator=generator)
    angles = torch.rand(140, generator=generator) * 2.2 + 0.3
    arc = 1.6 * torch.stack([angles.cos(), angles.sin()], 1) + 0.07 * noise[:140]
    centres = torch.tensor([[-1.2, -0.9], [0.9, -1.1], [-0.1, -0.2]])
    blobs = centres[torch.arange(180) % 3] + 0.22 * noise[140:]
    return torch.cat([arc, blobs])[:, :, None, None]


def table(kind: type[EMAQuantizer], start_from_data: bool, revive_after: int | None) -> Quantizer:
    """A table of codes that has followed the latents for some steps."""
    common = {"commitment_weight": 0.25, "decay": 0.9, "start_from_data": start_from_data, "revive_after": revive_after}
    own = {"gradient": "straight_through"} if kind is CosineEMAQuantizer else {"eps": 1e-5}
    quantizer = kind(CODES if kind is EMAQuantizer else 16, 2, **common, **own)
    for _ in range(STEPS):
        quantizer(latents())
        quantizer.update()
    return quantizer


def panel(x: int, title: str, below: str, quantizer: Quantizer, shown: Tensor) -> str:
    """One picture: latents as the quantizer sees them, codes, and whether any of these latents chooses them."""
    codes = quantizer.lookup(torch.arange(quantizer.codebook_size)[:, None, None])[:, :, 0, 0]
    used = set(quantizer.eval()(latents()).indices.flatten().tolist())
    scale = SIDE / 2 / REACH

    def at(point: Tensor) -> tuple[float, float]:
        return x + SIDE / 2 + scale * float(point[0]), TITLE + SIDE / 2 - scale * float(point[1])

    dots = "".join("M{:.1f} {:.1f}h0".format(*at(z)) for z in shown.flatten(1))
    marks = [
        '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.2"/>'.format("used" if i in used else "idle", *at(code))
        for i, code in enumerate(codes)
        if float(code.abs().max()) < REACH
    ]
    texts = [
        f'<text class="title" x="{x}" y="{TITLE - 8}">{title}</text>',
        f'<text x="{x}" y="{TITLE + SIDE + 15}">{below}: {len(used)} of {len(codes)} used</text>',
    ]
    frame = f'<rect class="frame" x="{x}" y="{TITLE}" width="{SIDE}" height="{SIDE}"/>'
    return "\n".join([frame, f'<path class="z" d="{dots}"/>', *marks, *texts])


@torch.no_grad()
def main() -> None:
    """All pictures beside each other."""
    torch.manual_seed(0)
    z = latents()
    direction = z / z.norm(dim=1, keepdim=True)
    entropy = {"entropy_weight": 0.1, "diversity_weight": 1.0, "entropy_boost": 1.0, "entropy_boost_steps": 1}
    lfq = LookupFreeQuantizer(4, 1, commitment_weight=0.25, temperature=0.01, **entropy)
    bsq = BinarySphericalQuantizer(4, 1, commitment_weight=0.0, temperature=1.0, group_bits=1, **entropy)
    panels = [
        ("emavq, from N(0, 1), no revival", "a table", table(EMAQuantizer, False, None), z),
        ("emavq, from data, revived", "a table", table(EMAQuantizer, True, 5), z),
        ("cosine_ema", "directions", table(CosineEMAQuantizer, True, 5), direction),
        ("fsq, levels=[7, 5]", "a grid", FiniteScalarQuantizer([7, 5], True, 1.0), z.tanh()),
        ("lfq, 2 bits", "signs", lfq, z),
        ("bsq, 2 bits", "signs on the sphere", bsq, direction),
    ]
    columns = 3
    rows = math.ceil(len(panels) / columns)
    step, height = SIDE + MARGIN, TITLE + SIDE + 24
    parts = [HEAD.format(width=columns * step + MARGIN, height=rows * height)]
    for n, (title, below, quantizer, shown) in enumerate(panels):
        drawn = panel(MARGIN + n % columns * step, title, below, quantizer, shown)
        parts.append(f'<g transform="translate(0 {n // columns * height})">\n{drawn}\n</g>\n')
    Path(__file__).with_name("codes.svg").write_text("".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main()
