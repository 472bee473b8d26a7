"""Measure finished tokenizers: PSNR, SSIM, LPIPS, rFID, rFVD, code use, bits, flicker."""

from __future__ import annotations

from pathlib import Path

from vqgan.commands.parser import add_parts, command_parser

EPILOG = """\
examples:
  vqgan evaluate runs/f16/2026-01-31_12-00-00
  vqgan evaluate runs/f16/2026-01-31_12-00-00 data.fps=8 data.clip_frames=16
  vqgan evaluate tokenizers/f16 tokenizers/f8 --data DIR --csv figures.csv

Without --data a run is measured on all clips of its own validation split, with it on every file below DIR.
docs/metrics.md says what the figures are.

values, changed by key=value (as are the run's own: data.key=value):
"""


def main() -> None:
    """`vqgan evaluate RUN [RUN ...] [--data DIR] [--out FILE.json] [--csv FILE] [key=value ...]`."""
    parser = command_parser("evaluate", __doc__, EPILOG, has_values=True)
    parser.add_argument(
        "arguments", metavar="RUN|key=value", nargs="+", help="run folders, exported tokenizers or hub ids; values"
    )
    parser.add_argument("--data", metavar="DIR", help="videos or pictures to measure on, all of them")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="instead of RUN/evaluation.json, for one RUN")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="gets a row for each RUN; else beside the .json")
    add_parts(parser)
    arguments = parser.parse_intermixed_args()
    typed = [text for text in arguments.arguments if "=" in text and not Path(text).exists()]
    runs = [text for text in arguments.arguments if text not in typed]
    if not runs:
        parser.error("no RUN is given")

    from vqgan.evaluation.evaluate import evaluate  # here, so that --help need not wait for torch

    evaluate(runs, arguments.data, arguments.out, arguments.csv, typed, arguments.parts)
