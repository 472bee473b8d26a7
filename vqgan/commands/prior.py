"""Train a prior: a transformer over tokens, which tells what they cost, and goes on from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vqgan.commands.parser import command_parser
from vqgan.errors import ConfigError

EPILOG = """\
examples:
  vqgan prior tokens
  vqgan prior tokens prior=tiny trainer.steps=300 data.clip_times=4
  vqgan prior tokens data.val_root=other_tokens data.side=true
  vqgan prior tokens -m prior=tiny,small
  vqgan prior resume=runs/prior/2026-01-31_12-00-00 trainer.steps=5000
  torchrun --nproc-per-node=8 --no-python vqgan prior tokens prior=medium trainer.precision=bf16

It is a run as every other: run folder, checkpoints, loggers, report, sweeps; the same command with the same run_dir
goes on. docs/prior.md says what comes of it. Groups: prior, optimizer, schedule, logger.

values, changed by key=value:
"""

WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p")  # Hydra's flags that something follows


def main() -> None:
    """`vqgan prior TOKENS [group=choice ...] [key=value ...]`, or `vqgan prior resume=RUN [key=value ...]`."""
    typed = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in typed):
        parser = command_parser("prior", __doc__, EPILOG, has_values=True)
        parser.add_argument("tokens", metavar="TOKENS", nargs="?", help="a folder that vqgan encode wrote")
        parser.add_argument("values", metavar="key=value", nargs="*", help="other values than those below")
        parser.parse_args(["--help"])
    from vqgan.commands import train  # here, since it brings Hydra

    sys.argv[1:] = as_overrides(typed)
    train.main()


def as_overrides(typed: Sequence[str]) -> list[str]:
    """What Hydra is to be told: which recipe, and the token folder by its key.

    Raises:
        ConfigError: no token folder is named, or several are.
    """
    named, others = list[str](), list[str]()
    for before, argument in zip(["", *typed], typed):
        is_ours = "=" in argument or argument.startswith(("-", "~")) or before in WITH_VALUE
        (others if is_ours else named).append(argument)
    if any(argument.startswith("resume=") for argument in others):
        if named:
            raise ConfigError(f"resume= continues a run on its own tokens: leave {named[0]} out.")
        return others
    if len(named) > 1:
        raise ConfigError(f"vqgan prior takes one folder of tokens, and was given {', '.join(named)}.")
    if not named and not any(argument.startswith("data.root=") for argument in others):
        raise ConfigError("Name the folder of tokens, which vqgan encode wrote: vqgan prior TOKENS.")
    quoted = [name.replace("\\", "\\\\").replace("'", "\\'") for name in named]
    return ["--config-name", "prior", *(f"data.root='{name}'" for name in quoted), *others]
