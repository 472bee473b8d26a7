"""Turn a folder of videos into tokens: sharded, memory-mapped, and continued by the same command if it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import add_out, add_parts, command_parser

EPILOG = """\
examples:
  vqgan encode runs/f16/2026-01-31_12-00-00 videos --out tokens
  vqgan encode tokenizers/f16 videos --out tokens square=true fps=8 batch_frames=64
  torchrun --nproc-per-node=8 --no-python vqgan encode tokenizers/f16 videos --out tokens precision=bf16

In Python: vqgan.tokens.open("tokens"). docs/tokens.md has the format.

values, changed by key=value:
"""


def main() -> None:
    """`vqgan encode RUN VIDEOS --out TOKENS [key=value ...]`."""
    parser = command_parser("encode", __doc__, EPILOG, has_values=True)
    parser.add_argument("run", metavar="RUN", help="a run folder, an exported tokenizer, or the id of one on the hub")
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="a folder tree of videos, or one video")
    add_out(parser, "TOKENS", "folder to write, or to go on with")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
    add_parts(parser)
    arguments = parser.parse_intermixed_args()
    encode(arguments.run, arguments.videos, arguments.out, arguments.values, arguments.parts)


def encode(run: str, videos: Path, out: Path, typed: Sequence[str], parts: Path | None) -> None:
    """Encode, and say what was done.

    Raises:
        VQGANError: see `FolderEncoder.run`.
    """
    from vqgan.config.build import build
    from vqgan.config.command import command_config  # here, so that --help need not wait for torch
    from vqgan.runtime.process import this_process
    from vqgan.text import counted
    from vqgan.tokenizer.encode_folder import FolderEncoder
    from vqgan.tokenizer.tokenizer import load, refuse_parts
    from vqgan.tokens.folder import Tokens

    encoding = build(command_config("encode", typed), "")
    tokenizer = load(run, parts)
    refuse_parts(tokenizer)
    said = FolderEncoder(tokenizer, encoding, videos, out).run()
    process = this_process()
    if process.count > 1:
        print(f"process {process.rank}: {said}")
        return
    tokens = Tokens(out)
    print(f"{said}. {out} holds {counted(tokens.total, 'token')} of {counted(len(tokens), 'video')}.")
