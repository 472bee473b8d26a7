"""Turn a folder of videos into tokens: sharded, memory-mapped, and continued by the same command if it is stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from vqgan.command_config import command_config
from vqgan.config import build
from vqgan.distributed import this_process
from vqgan.encoding import Encoding
from vqgan.folder_encoder import FolderEncoder
from vqgan.tokenizer import load
from vqgan.tokens import Tokens

EXAMPLES = """examples:
  vqgan encode runs/f16/2026-01-31_12-00-00 videos --out tokens
  vqgan encode tokenizers/f16 videos --out tokens square=true fps=8 batch_frames=64
  torchrun --nproc-per-node=8 --no-python vqgan encode tokenizers/f16 videos --out tokens precision=bf16

Values and what they mean are in conf/encode.yaml. In Python: vqgan.tokens.open("tokens").
"""


def main() -> None:
    """`vqgan encode RUN VIDEOS --out TOKENS [key=value ...]`."""
    parser = argparse.ArgumentParser(
        prog="vqgan encode",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, an exported tokenizer, or the id of one on the hub")
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="a folder tree of videos, or one video")
    parser.add_argument("--out", metavar="TOKENS", type=Path, required=True, help="folder to write, or to go on with")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those of conf/encode.yaml")
    arguments = parser.parse_intermixed_args()
    encoding: Encoding = build(command_config("encode", arguments.values), "")
    said = FolderEncoder(load(arguments.run), encoding, arguments.videos, arguments.out).run()
    process = this_process()
    if process.count > 1:
        print(f"process {process.rank}: {said}")
        return
    tokens = Tokens(arguments.out)
    codes = sum(record.shape[0] * record.shape[1] * record.shape[2] for record, _ in tokens.records)
    print(f"{said}. {arguments.out} holds {codes:,} tokens of {len(tokens)} videos.")
