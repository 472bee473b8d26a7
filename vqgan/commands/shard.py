"""Turn a folder of videos into tar shards of short clips to train from: data=shards, on disk or in object storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import add_out, command_parser
from vqgan.text import PROGRAM

EPILOG = """\
examples:
  vqgan shard videos --out shards
  vqgan shard videos --out shards resolution=128 clip_frames=32 workers=8
  torchrun --nproc-per-node=8 --no-python vqgan shard videos --out shards
  python train.py data=shards data.root=shards

Stopped or killed, the same command goes on. docs/shards.md has the format, and how it gets to object storage.

values, changed by key=value:
"""


def main() -> None:
    """`vqgan shard VIDEOS --out SHARDS [key=value ...]`."""
    parser = command_parser("shard", __doc__, EPILOG, has_values=True)
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="a folder tree of videos, or one video")
    add_out(parser, "SHARDS", "folder to write, or to go on with")
    parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
    arguments = parser.parse_intermixed_args()
    shard(arguments.videos, arguments.out, arguments.values)


def shard(videos: Path, out: Path, typed: Sequence[str]) -> None:
    """Write shards, and say what was done.

    Raises:
        VQGANError: see `FolderSharder.run`.
    """
    from vqgan.config.build import build
    from vqgan.config.command import command_config  # here, so that --help need not wait for torch
    from vqgan.data.sharding.folder import FolderSharder
    from vqgan.runtime.process import this_process

    said = FolderSharder(build(command_config("shard", typed), ""), videos, out).run()
    process = this_process()
    print(f"process {process.rank}: {said}" if process.count > 1 else f"{said}. Train from them with:")
    if process.count == 1:
        print(f"{PROGRAM} data=shards data.root={out}")
