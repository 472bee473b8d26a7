"""Pack tokens for other engines: one line of tokens with its index, as Megatron, torchtitan and NumPy read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import add_out, add_parts, command_parser

EPILOG = """\
examples:
  vqgan pack tokens --out pack
  vqgan pack tokens --out pack --tokenizer runs/f16/2026-01-31_12-00-00 end_of_frame=true
  vqgan pack tokens --out pack window=16 overlap=4 'lists={train: train.txt, val: val.txt}'
  vqgan pack tokens --out arrow --format datasets factors=2
  torchrun --nproc-per-node=8 --no-python vqgan pack tokens --out pack

Stopped or killed, the same command goes on. docs/after.md has the format, and what comes next.

values, changed by key=value:
"""


def main() -> None:
    """`vqgan pack TOKENS --out DIR [--format memmap|datasets] [--tokenizer RUN] [key=value ...]`."""
    parser = command_parser("pack", __doc__, EPILOG, has_values=True)
    parser.add_argument("tokens", metavar="TOKENS", type=Path, help="a folder that vqgan encode wrote")
    add_out(parser, "DIR", "folder to write, or to go on with")
    parser.add_argument(
        "--format", choices=["memmap", "datasets"], default="memmap", help="tokens.bin and its index, or Arrow"
    )
    parser.add_argument("--tokenizer", metavar="RUN", help="that encoded them: its table of codes is put beside")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
    add_parts(parser)
    arguments = parser.parse_intermixed_args()
    pack(
        arguments.tokens, arguments.out, arguments.format, arguments.tokenizer, arguments.values, arguments.parts
    )  # fmt: skip


def pack(folder: Path, out: Path, kind: str, tokenizer: str | None, typed: Sequence[str], parts: Path | None) -> None:
    """Pack, and say what was done.

    Raises:
        VQGANError: see `Packer.run`.
    """
    from vqgan.config.build import build
    from vqgan.config.command import command_config  # here, so that --help need not wait for torch
    from vqgan.packing.arrow import DatasetsPacker
    from vqgan.packing.codebook import table_of
    from vqgan.packing.memmap import MemmapPacker
    from vqgan.packing.writer import warn_if_shared
    from vqgan.tokens.folder import Tokens

    packing, tokens = build(command_config("pack", typed), ""), Tokens(folder)
    table = None if tokenizer is None else table_of(tokenizer, tokens, parts)
    packer = (MemmapPacker if kind == "memmap" else DatasetsPacker)(tokens, packing, out, table)
    warn_if_shared(packer.splits)
    said = packer.run()
    process = packer.process
    if process.count > 1:
        print(f"process {process.rank}: {said}")
        return
    held = ", ".join(f"{int(split.offsets[-1]):,} in {out / split.name}" for split in packer.splits)
    print(f"{said}. Tokens: {held}.")
