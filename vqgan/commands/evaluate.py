"""Measure finished tokenizers, of this project and others: PSNR, SSIM, LPIPS, rFID, rFVD, code use, bits, flicker."""

from __future__ import annotations

import re
from pathlib import Path

from vqgan.commands.parser import add_json, add_parts, command_parser, only_json

KEY_AND_VALUE = re.compile(r"[^:=]+=")  # and no path after python: or videos:
EPILOG = """\
examples:
  vqgan evaluate runs/f16/2026-01-31_12-00-00
  vqgan evaluate runs/f16/2026-01-31_12-00-00 data.fps=8 data.clip_frames=16
  vqgan evaluate tokenizers/f16 tokenizers/f8 --data DIR --csv figures.csv
  vqgan evaluate tokenizers/f16 python:cosmos.py:reconstruct videos:DIR codec:libx264 mean-colour --data DIR

python:FILE.py:NAME or python:MODULE:NAME is a function from frames to frames, whose code is run; videos:DIR holds
reconstructions under the paths of their originals; codec:NAME is a curve of a video codec: see docs/referee.md.

Without --data all are measured on all clips of the validation split of the first run, with it on every file below DIR;
clips are as long and as large as that run's, unless data.clip_frames=… data.resolution=… say otherwise.
docs/metrics.md says what the figures are.

values, changed by key=value (as are the run's own: data.key=value):
"""


def main() -> None:
    """`vqgan evaluate RUN [RUN ...] [--data DIR] [--out FILE.json] [--csv FILE] [--json] [key=value ...]`."""
    parser = command_parser("evaluate", __doc__, EPILOG, has_values=True)
    parser.add_argument(
        "arguments",
        metavar="RUN|key=value",
        nargs="+",
        help="run folders, exported tokenizers, hub ids, or others' (see below); values",
    )
    parser.add_argument("--data", metavar="DIR", help="videos or pictures to measure on, all of them")
    parser.add_argument(
        "--out", metavar="FILE.json|DIR", type=Path, help="instead of RUN/evaluation.json; of several a folder"
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="gets a row for each RUN; else beside the .json")
    add_json(parser)
    add_parts(parser)
    arguments = parser.parse_intermixed_args()
    typed = [text for text in arguments.arguments if KEY_AND_VALUE.match(text) and not Path(text).exists()]
    runs = [text for text in arguments.arguments if text not in typed]
    if not runs:
        parser.error("no RUN is given")

    from vqgan.evaluation.evaluate import evaluate  # here, so that --help need not wait for torch

    with only_json(arguments.json) as result:
        show = (lambda text: print(text, file=result)) if arguments.json else None
        evaluate(runs, arguments.data, arguments.out, arguments.csv, typed, arguments.parts, show)
