"""Let a prior go on from held-out videos, and write what it makes of them as videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import add_out, add_parts, command_parser

EPILOG = """\
examples:
  vqgan sample runs/prior/2026-01-31_12-00-00 --out continuations
  vqgan sample runs/prior/2026-01-31_12-00-00 --out long times=32 prompt_times=4 temperature=0.9 seed=1
  vqgan sample runs/prior/2026-01-31_12-00-00 --out many gfvd=true videos=500 times=16
  vqgan sample runs/prior/2026-01-31_12-00-00 --out moved --tokens tokens --tokenizer tokenizers/f16

Left is what was there, right how the prior goes on. The run's report shows them too.

values, changed by key=value:
"""


def main() -> None:
    """`vqgan sample PRIOR --out VIDEOS [--tokens TOKENS] [--tokenizer RUN] [--videos VIDEOS] [key=value ...]`."""
    parser = command_parser("sample", __doc__, EPILOG, has_values=True)
    parser.add_argument("run", metavar="PRIOR", type=Path, help="the run folder of a prior")
    add_out(parser, "VIDEOS", "folder to write")
    parser.add_argument("--tokens", metavar="TOKENS", help="where the held-out videos' tokens are, if they were moved")
    parser.add_argument("--tokenizer", metavar="RUN", help="the tokenizer of these tokens, if it was moved")
    parser.add_argument("--videos", metavar="VIDEOS", type=Path, help="those that were encoded, if moved; for gfvd")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
    add_parts(parser)
    typed = parser.parse_intermixed_args()
    sample(typed.run, typed.out, typed.tokens, typed.tokenizer, typed.values, typed.parts, typed.videos)


def sample(
    run: Path,
    out: Path,
    tokens: str | None,
    tokenizer: str | None,
    typed: Sequence[str],
    parts: Path | None,
    videos: Path | None,
) -> None:
    """Sample, and say what was done.

    Raises:
        VQGANError: see `write_continuations`.
    """
    from vqgan.config.build import build
    from vqgan.config.command import command_config  # here, so that --help need not wait for torch
    from vqgan.prior.continuations import load_prior, tokenizer_of, write_continuations

    sampling = build(command_config("sample", typed), "")
    prior = load_prior(run, tokens)
    said = write_continuations(run, prior, tokenizer_of(prior, tokenizer, parts), sampling, out, videos)
    print(f"{said}. They are in {out}, and in {run / 'report.html'}.")
