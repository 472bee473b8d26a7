"""Turn tokens back into videos, each at its source's frame rate and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import add_out, add_parts, command_parser

EPILOG = """\
examples:
  vqgan decode runs/f16/2026-01-31_12-00-00 tokens --out reconstructions
  vqgan decode tokenizers/f16 tokens --out comparison --side-by-side crf=12

Sound is not kept.

values, changed by key=value:
"""


def main() -> None:
    """`vqgan decode RUN TOKENS --out VIDEOS [--side-by-side] [--videos DIR] [key=value ...]`."""
    parser = command_parser("decode", __doc__, EPILOG, has_values=True)
    parser.add_argument("run", metavar="RUN", help="the tokenizer that encoded them: a run, an exported one, a hub id")
    parser.add_argument("tokens", metavar="TOKENS", type=Path, help="a folder that vqgan encode wrote")
    add_out(parser, "VIDEOS", "folder to write or to go on with")
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="original and reconstruction at the tokenizer's size, with PSNR per frame",
    )
    parser.add_argument("--videos", metavar="DIR", type=Path, help="where the originals are, if they were moved")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
    add_parts(parser)
    arguments = parser.parse_intermixed_args()
    decode(
        arguments.run,
        arguments.tokens,
        arguments.out,
        arguments.side_by_side,
        arguments.videos,
        arguments.values,
        arguments.parts,
    )


def decode(
    run: str,
    folder: Path,
    out: Path,
    side_by_side: bool,
    originals: Path | None,
    typed: Sequence[str],
    parts: Path | None,
) -> None:
    """Decode, and say what was done.

    Raises:
        VQGANError: see `FolderDecoder.run`.
    """
    from vqgan.config.build import build
    from vqgan.config.command import command_config  # here, so that --help need not wait for torch
    from vqgan.tokenizer.decode_folder import FolderDecoder
    from vqgan.tokenizer.tokenizer import load
    from vqgan.tokens.folder import Tokens

    decoding = build(command_config("decode", typed), "")
    tokens = Tokens(folder)
    shown = (originals or Path(str(tokens.manifest.get("videos")))) if side_by_side else None
    said = FolderDecoder(load(run, parts), decoding, tokens, out, shown).run()
    print(f"{said}. They are in {out}.")
