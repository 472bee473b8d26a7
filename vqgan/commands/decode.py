"""Turn tokens back into videos, each at its source's frame rate and size."""

from __future__ import annotations

import argparse
from pathlib import Path

from vqgan.command_config import command_config
from vqgan.config import build
from vqgan.decoding import Decoding
from vqgan.folder_decoder import FolderDecoder
from vqgan.tokenizer import load
from vqgan.tokens import Tokens

EXAMPLES = """examples:
  vqgan decode runs/f16/2026-01-31_12-00-00 tokens --out reconstructions
  vqgan decode tokenizers/f16 tokens --out comparison --side-by-side crf=12

Values and what they mean are in conf/decode.yaml. Sound is not kept.
"""


def main() -> None:
    """`vqgan decode RUN TOKENS --out VIDEOS [--side-by-side] [--videos DIR] [key=value ...]`."""
    parser = argparse.ArgumentParser(
        prog="vqgan decode",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="the tokenizer that encoded them: a run, an exported one, a hub id")
    parser.add_argument("tokens", metavar="TOKENS", type=Path, help="a folder that vqgan encode wrote")
    parser.add_argument("--out", metavar="VIDEOS", type=Path, required=True, help="folder to write or to go on with")
    parser.add_argument("--side-by-side", action="store_true", help="original and reconstruction, with PSNR per frame")
    parser.add_argument("--videos", metavar="DIR", type=Path, help="where the originals are, if they were moved")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those of conf/decode.yaml")
    arguments = parser.parse_intermixed_args()
    decoding: Decoding = build(command_config("decode", arguments.values), "")
    tokens = Tokens(arguments.tokens)
    originals = arguments.videos or Path(tokens.manifest["videos"])
    shown = originals if arguments.side_by_side else None
    said = FolderDecoder(load(arguments.run), decoding, tokens, arguments.out, shown).run()
    print(f"{said}. They are in {arguments.out}.")
