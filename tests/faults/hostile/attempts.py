"""The processes: one that has all imported, and for each attempt one that is forked from it and tells what it took."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.faults.hostile.honest import DESCRIPTION, MIB, honest_config, honest_state, parts
from vqgan.config.versions import register_resolver
from vqgan.errors import VQGANError
from vqgan.runs.checkpoint import Checkpoints
from vqgan.tokenizer.tokenizer import rebuild

ROOT = Path(__file__).resolve().parents[3]
CONFIG, CHECKPOINT = 2, 7  # exit codes
LARGEST = 512 * MIB  # a hostile file may take so much more than an honest one, in memory or address space
LONGEST, PATIENCE = 5.0, 60.0  # the processor's seconds that it may take; by the clock, after which it is ended
TOKEN, ADDRESS = "token-of-the-user-1234", "postgres://user:hunter22@host"  # what must not be printed
ENVIRONMENT = {"HOSTILE_TOKEN": TOKEN, "DATABASE_URL": ADDRESS}


def in_words_of_the_command(action: Callable[[], object]) -> None:
    """End as a command would."""
    warnings.showwarning = lambda message, *_, **__: print("Warning:", *str(message).split(), file=sys.stderr)
    try:
        action()
    except VQGANError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def command(*arguments: str) -> None:
    commands = importlib.import_module("vqgan.commands")
    sys.argv = ["vqgan", *arguments]
    commands.main()


def load(source: str) -> None:
    """`vqgan.load`, in a program that has a resolver `eval`, as many have."""
    register_resolver("eval", eval)
    package = importlib.import_module("vqgan")
    in_words_of_the_command(lambda: package.load(source))


def load_latest(folder: str) -> None:
    in_words_of_the_command(lambda: Checkpoints(Path(folder), keep=1).load_latest(**parts()))


def read_best(folder: str) -> None:
    in_words_of_the_command(lambda: Checkpoints(Path(folder), keep=1).read_best())


def save_again(folder: str) -> None:
    checkpoints = Checkpoints(Path(folder), keep=1)
    checkpoints.save_in_background(100, score=1.0, **parts())
    in_words_of_the_command(checkpoints.finish)


def perceptual_weights(file: str) -> None:
    losses = importlib.import_module("vqgan.losses")
    in_words_of_the_command(lambda: losses.LPIPS(weights=file))


ENTRIES: dict[str, Callable[..., None]] = {
    "command": command,
    "load": load,
    "latest": load_latest,
    "best": read_best,
    "save": save_again,
    "perceptual": perceptual_weights,
}


def memory() -> dict[str, int]:
    """Peaks of this process so far, in bytes: of what is in memory, and of addresses."""
    rows = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[0] in ("VmPeak:", "VmHWM:")}


def attempt(entry: str, arguments: list[str], folder: str, report: str) -> None:
    """What the forked process does; it ends here."""
    code = 1
    os.chdir(folder)
    os.environ |= ENVIRONMENT
    for number, name in ((1, "output"), (2, "error")):
        os.dup2(os.open(f"{report}.{name}", os.O_WRONLY | os.O_CREAT), number)
    before = memory()
    limit = before["VmPeak"] + 6 * 2**30  # so that a bomb that works is measured, and does not take the machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        ENTRIES[entry](*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        after = memory()
        Path(f"{report}.memory").write_text(str(max(after[name] - before[name] for name in after)))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Import all, then fork for each line of the input; answer with exit code (none if it was ended) and seconds."""
    torch.set_num_threads(1)
    for name in ("training.run", "tokenizer", "losses", "commands.train", "commands.export", "commands.import_taming"):
        importlib.import_module(f"vqgan.{name}")
    for warm_up in (honest_config, honest_state, parts):  # torch and Hydra import some more when first used
        warm_up()
    rebuild(DESCRIPTION, honest_state())
    gc.freeze()  # else each process would copy what it looks through
    for line in sys.stdin:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            attempt(**json.loads(line))
        ended, status = 0, 0
        while not ended and time.monotonic() < start + PATIENCE:
            time.sleep(0.003)
            ended, status, used = os.wait4(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, _, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status) if ended else None
        print(json.dumps({"code": code, "seconds": used.ru_utime + used.ru_stime}), flush=True)


@dataclass
class Ended:
    """How an attempt ended."""

    code: int | None
    seconds: float  # of the processor
    output: str
    error: str
    bytes: int

    @property
    def paragraph(self) -> str:
        """What it said, apart from warnings."""
        lines = [line for line in self.error.splitlines() if line and not line.startswith("Warning: ")]
        assert len(lines) == 1, self.error[-3000:]
        return lines[0]


Attempt = Callable[..., Ended]


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with what is there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_size} bytes of {path.stat().st_mtime_ns}"
        else:
            found[name] = "something else"
    return found
