"""Reading what `torch.save` wrote, whoever sent it: data and nothing else."""

from __future__ import annotations

import argparse
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from vqgan.errors import CheckpointError

MOST_VALUES = 10**6  # numbers, texts and tensors of a checkpoint
SHARED = 2  # how often tensors may share their values: some networks tie weights
# All that the pickle in a file of plain data may name.
PLAIN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
NAMESPACE = "argparse Namespace"  # names and values: what was typed, in checkpoints of some projects
LIGHTNING = re.compile(
    r"(pytorch_lightning|lightning)(\.\w+)+ \w+"
)  # in whose older files classes of callbacks are keys
PLAIN_STORAGE = re.compile(r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage")


class Unread:
    """What stands for a class that is named in a file, and is not looked for."""


def read_plain(file: Path, foreign: bool = False) -> Any:
    """What `torch.save` wrote: tensors, numbers, text, lists and dicts, and nothing that would run code.

    Args:
        file: to read.
        foreign: whether there may be an `argparse.Namespace` of these, and names of Lightning's classes, which become
            `Unread`: other projects' checkpoints have them.

    Raises:
        CheckpointError: it is more than that, or claims to be larger than it is.
    """
    refused = CheckpointError(
        f"{file} is not plain data, so it was not loaded: tensors, numbers, text, lists and dicts, as torch has saved "
        "them since 1.6, are all that is ever read, since anything else could run code."
    )
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch does not compress, so what claims to be larger than the file is a trap.
            if sum(entry.file_size for entry in entries) > file.stat().st_size:
                raise refused
            pickles = [archive.read(entry) for entry in entries if entry.filename.lower().endswith(".pkl")]
        named = {name for content in pickles for name in _named_in(content, foreign)}
        others = {name for name in named if name not in PLAIN and not PLAIN_STORAGE.fullmatch(name)}
        classes = {name for name in others if LIGHTNING.fullmatch(name)}
        if others - classes - {NAMESPACE} or (others and not foreign):
            raise refused
        # Neither of these can do anything, and no class of the file's own is looked for.
        with torch.serialization.safe_globals(
            [argparse.Namespace, *((Unread, name.replace(" ", ".")) for name in classes)] if foreign else []
        ):
            state = torch.load(file, map_location="cpu", weights_only=True)
        if not _is_held_by(state, SHARED * file.stat().st_size):
            raise refused
        return state
    except CheckpointError:
        raise
    except Exception:  # a hostile file can make the reader fail in any way; torch's own advice would be to trust it
        raise refused from None


def _named_in(content: bytes, foreign: bool) -> list[str]:
    """All that a pickle names.

    torch's own reader, which follows, allows more than tensors: functions that take gigabytes, for example.

    Raises:
        ValueError: it names or makes something in another way than files of plain data do.
    """
    # By NEWOBJ namespaces are made, and of what may be named nothing else can be.
    makers = {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "OBJ"} | (set() if foreign else {"NEWOBJ"})
    named = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            named.append(str(argument))
        elif opcode.name in makers:
            raise ValueError(opcode.name)
    return named


def _is_held_by(state: Any, size: int) -> bool:
    """Whether tensors do not claim more bytes than the file has, and dicts and lists can be walked through.

    Views of one storage can claim any size, and a list that stands twice in each next one has no end.
    """
    waiting = [state]
    for _ in range(MOST_VALUES):
        if not waiting:
            return True
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            size -= value.numel() * value.element_size()
            if size < 0:
                return False
        elif isinstance(value, dict):
            waiting.extend(dict.values(value))
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, argparse.Namespace):
            waiting.extend(vars(value).values())
    return False
