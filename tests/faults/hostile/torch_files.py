"""Files of torch.save and what claims to be one: more than plain data, or plain data that are no network's."""

from __future__ import annotations

import functools
import importlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.faults.hostile.honest import MIB, a_run, signed

Write = Callable[[Path, Path], None]  # to a file; an attack that works makes the marker


class Call:
    """Pickled as a call of a function: what the file's reader is told to run."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments

    def __call__(self) -> None:
        raise NotImplementedError


class Build:
    """Pickled as a call of a function whose result is then given attributes."""

    def __init__(self, function: Any, **attributes: Any) -> None:
        self.function, self.attributes = function, attributes

    def __reduce__(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        return self.function, (), self.attributes


@dataclass
class Storage:
    """Pickled as a reference to a record of the archive, that claims to be so many numbers."""

    numbers: int
    key: str = "0"
    more: tuple[Any, ...] = ()


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return None
        return "storage", torch.FloatStorage, value.key, "cpu", value.numbers, *value.more


def pickled(content: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol).dump(content)
    return file.getvalue()


def archive(file: Path, data: bytes, records: Mapping[str, bytes] | None = None, compression: int = 0) -> None:
    """A file as torch.save writes it, of any content."""
    entries = {"data.pkl": data, "byteorder": b"little", "version": b"3\n", **(records or {})}
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(name[1:] if name.startswith("!") else f"state/{name}", content)


REBUILD: Any = torch._utils._rebuild_tensor_v2


def tensor(numbers: int, size: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> Call:
    return Call(REBUILD, Storage(numbers, key), 0, size, stride, False, OrderedDict())


def shell(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def under_all_names(value: Any) -> dict[str, Any]:
    """A state in which the value stands wherever somebody looks."""
    return {"autoencoder": value, "network": value, "optimizer": value}


def module(name: str) -> Any:
    return importlib.import_module(name)


CALLS: dict[str, Callable[[Path], Any]] = {
    "os.system": shell,
    "Path.touch": lambda m: Call(Path.touch, m),
    "eval": lambda m: Call(eval, f"__import__('pathlib').Path({str(m)!r}).touch()"),
    "exec": lambda m: Call(exec, f"import pathlib; pathlib.Path({str(m)!r}).touch()"),
    "open": lambda m: Call(open, str(m), "w"),
    "subprocess.call": lambda m: Call(subprocess.call, ["touch", str(m)]),
    "subprocess.Popen": lambda m: Call(subprocess.Popen, ["touch", str(m)]),
    "shutil.copy": lambda m: Call(shutil.copy, __file__, str(m)),
    "torch.save": lambda m: Call(torch.save, 1, str(m)),
    "torch.storage._load_from_bytes": lambda m: Call(torch.storage._load_from_bytes, legacy(shell(m))),
    "pickle.loads": lambda m: Call(pickle.loads, pickled(shell(m))),
    "getattr of a module": lambda m: Call(Call(getattr, Call(importlib.import_module, "os"), "system"), f"touch {m}"),
    "functools.partial": lambda m: Call(functools.partial(os.system, f"touch {m}")),
    "torch's own exec": lambda m: Call(module("torch.jit.unsupported_tensor_ops").execWrapper, f"open('{m}','w')", 0),
    "torch's own shell": lambda m: Call(module("torch.utils.collect_env").run, f"touch {m}"),
    "a tensor with a hook": lambda m: Call(REBUILD, Storage(1), 0, (1,), (1,), True, OrderedDict({0: shell(m)})),
    "a tensor of a type": lambda m: Call(torch._tensor._rebuild_from_type_v2, os.system, Tensor, (f"touch {m}",), {}),
    "a class of its own": lambda m: Call(type, "T", (), {"__init_subclass__": shell(m)}),
}  # fmt: skip


def legacy(content: Any) -> bytes:
    """A file of torch before 1.6, without a zip."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def write_old(file: Path, marker: Path) -> None:
    file.write_bytes(legacy({"network": shell(marker)}))


def write_old_claim(file: Path, marker: Path) -> None:
    """The reader of old files takes memory before it looks whether there is so much."""
    storage = Storage(2**30, more=(None,))
    state = pickled(under_all_names(Call(REBUILD, storage, 0, (1,), (1,), False, OrderedDict())))
    head = [pickled(torch.serialization.MAGIC_NUMBER), pickled(1001), pickled({"little_endian": True})]
    file.write_bytes(b"".join([*head, state, pickled(["0"]), struct.pack("<q", 2**30)]))


def write_tar(file: Path, marker: Path) -> None:
    """A file of torch before 0.1.10."""
    with tarfile.open(file, "w") as made:
        for name in ("pickle", "storages", "tensors", "../../marker"):
            entry = tarfile.TarInfo(name)
            content = pickled(shell(marker))
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))


def opcodes(code: bytes) -> Write:
    return lambda file, marker: archive(file, code.replace(b"MARKER", str(marker).encode()))


def raw(content: bytes) -> Write:
    def write(file: Path, marker: Path) -> None:
        file.write_bytes(content)

    return write


def calling(name: str) -> Write:
    return lambda file, marker: archive(file, pickled({"network": CALLS[name](marker)}), {"data/0": bytes(4)})


def state(content: Any) -> Write:
    return lambda file, marker: archive(file, pickled(content), {"data/0": bytes(4)})


def everywhere(content: Any) -> Write:
    return state(under_all_names(content))


def write_traversal(file: Path, marker: Path) -> None:
    names = ("!../../marker", f"!{marker}", "!state/../../../marker", "data/../../../../marker", "!..\\..\\marker")
    content = under_all_names(tensor(1, (1,), (1,), key="../../../../marker"))
    archive(file, pickled(content), dict.fromkeys(names, b"\x00\x00\x00\x00"))


def write_two_contents(file: Path, marker: Path) -> None:
    """Two entries of one name: whoever checks the one may read the other."""
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("state/data.pkl", pickled({"network": 1}))
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("state/data.pkl", pickled(shell(marker)))


def write_in_capitals(file: Path, marker: Path) -> None:
    """Torch finds an entry whatever the case of its name, and first of two the one in capitals."""
    harmless, hostile = pickled(under_all_names({})), pickled(Call(bytearray, 2**32))
    archive(file, harmless, {"!state/DATA.PKL": hostile})
    with zipfile.ZipFile(file) as made:
        content = {entry.filename: made.read(entry) for entry in reversed(made.infolist())}
    with zipfile.ZipFile(file, "w") as made:
        for name, data in content.items():
            made.writestr(name, data)


def write_polyglot(file: Path, marker: Path) -> None:
    """A zip to whoever looks at the end, an old file with a payload to whoever looks at the beginning."""
    archive(file, pickled({"network": 1}))
    file.write_bytes(legacy({"network": shell(marker)}) + file.read_bytes())


def write_script(file: Path, marker: Path) -> None:
    """What torch takes for TorchScript, whose reader is another one."""
    code = f"import os\nos.system('touch {marker}')".encode()
    archive(file, pickled({}), {"constants.pkl": pickled(()), "code/__torch__.py": code})


@functools.cache
def gigabyte_of_nothing() -> bytes:
    """1 GiB of zeros, deflated; full flushes, so that one part can be repeated."""
    part = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = part.compress(bytes(16 * MIB)) + part.flush(zlib.Z_FULL_FLUSH)
    return repeated * 64 + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def bomb(file: Path, claimed: int) -> None:
    """An archive with an entry of a gigabyte, and what it claims to be."""
    archive(file, pickled(under_all_names(tensor(2**28, (2**28,), (1,)))))
    checksum = functools.reduce(lambda crc, _: zlib.crc32(bytes(MIB), crc), range(1024), 0)
    packed, name = gigabyte_of_nothing(), b"state/data/0"
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, checksum, len(packed), claimed, len(name), 0)
    content = file.read_bytes()
    end = content.rindex(b"PK\5\6")
    entries, length, start = struct.unpack("<HII", content[end + 10 : end + 20])
    local = b"PK\3\4" + common + name + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + common + bytes(10) + struct.pack("<I", start) + name
    tail = struct.pack("<HHHHIIH", 0, 0, entries + 1, entries + 1, length + len(central), start + len(local), 0)
    file.write_bytes(content[:start] + local + content[start:end] + central + b"PK\5\6" + tail)


def write_shared_record(file: Path, marker: Path) -> None:
    """Thousands of tensors, each of them all of one storage."""
    numbers = 2**18
    many = {str(n): tensor(numbers, (numbers,), (1,)) for n in range(2000)}
    archive(file, pickled(under_all_names(many)), {"data/0": bytes(4 * numbers)})


def write_growing_text(file: Path, marker: Path) -> None:
    """Text that is encoded as hexadecimal digits, again and again: twice as long each time."""
    encode = importlib.import_module("_codecs").encode
    grown = Call(encode, "0" * 64, "latin1")
    for _ in range(26):
        grown = Call(encode, grown, "hex")
    archive(file, pickled(grown))


def doubled(times: int) -> list[Any]:
    """A list of two lists that are the same, and so on: small here, endless for whoever walks through it."""
    value: list[Any] = [0]
    for _ in range(times):
        value = [value, value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def write_depth(file: Path, marker: Path) -> None:
    depth = 10**5
    archive(file, b"\x80\x02" + b"}U\x07networkq\0" + b"]" * depth + b"a" * (depth - 1) + b"s.")


# Files that are more than plain data, or not what they claim: refused by whoever reads them.
FILES: dict[str, Write] = {
    **{f"calls {name}": calling(name) for name in CALLS},
    "calls os.system, without a zip": lambda file, marker: raw(pickled(shell(marker)))(file, marker),
    "a file of old": write_old,
    "a file of old that claims gigabytes": write_old_claim,
    "a tar": write_tar,
    "opcodes of another protocol": lambda file, marker: archive(file, pickled({"network": shell(marker)}, protocol=4)),
    "the opcode INST": opcodes(b"(S'touch MARKER'\nios\nsystem\n."),
    "an unknown opcode, then a payload": opcodes(b"\x80\x02\xff(S'touch MARKER'\nios\nsystem\n."),
    "an empty stack": opcodes(b"\x80\x020000."),
    "an unknown memo": opcodes(b"\x80\x02h\x63."),
    "a number that is cut": opcodes(b"\x80\x02J\x01"),
    "a storage that is none": opcodes(b"\x80\x02K\x01Q."),
    "a storage of too few values": opcodes(b"\x80\x02U\x07storage\x85Q."),
    "a name that is no text": opcodes(b"\x80\x02c\xff\xfe\n\xff\n."),
    "an extension": opcodes(b"\x80\x02\x82\x01."),
    "nothing": raw(b""),
    "noise": raw(bytes(range(256)) * 64),
    "a zip of nothing": raw(b"PK\5\6" + bytes(18)),
    "names that climb out": write_traversal,
    "two contents": write_two_contents,
    "a content beside one in capitals": write_in_capitals,
    "two files in one": write_polyglot,
    "TorchScript": write_script,
    "a zip bomb": lambda file, marker: bomb(file, 2**30),
    "a zip bomb that lies": lambda file, marker: bomb(file, 4),
    "a tensor of 2^40 numbers": everywhere(tensor(1, (2**40,), (1,))),
    "a storage of 2^40 numbers": everywhere(tensor(2**40, (2**40,), (1,))),
    "a size below zero": everywhere(tensor(1, (-1,), (1,))),
    "a place below zero": everywhere(Call(REBUILD, Storage(1), -4, (1,), (1,), False, OrderedDict())),
    "text that grows": write_growing_text,
    "an array of gigabytes": everywhere(Call(bytearray, 2**32)),
    "a tensor of gigabytes": everywhere(Call(torch.Tensor, 2**30)),
    "a storage of gigabytes": everywhere(Call(torch.UntypedStorage, 2**32)),
}
WITHOUT_DATA = Call(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (3, 3), (3, 1), False)
# Plain data, but not those of a network: refused as damaged, or as another network's.
STRANGERS: dict[str, Write] = {
    "a tensor of 2^40 times one number": everywhere(tensor(1, (2**40,), (0,))),
    "a tensor of 2^30 times one number": everywhere({"weight": tensor(1, (2**30,), (0,))}),
    "one storage in thousands of tensors": write_shared_record,
    "a tensor without data": everywhere({"weight": WITHOUT_DATA, "bias": tensor(1, (1,), (1,))}),
    "a list that is in itself": everywhere(endless()),
    "a list of lists of lists": write_depth,
    "a list that doubles": everywhere(doubled(60)),
    "numbers for parts": everywhere(5),
    "nothing for parts": everywhere(None),
    "no parts": state({}),
    "parts without names": state({1: 2, (3,): 4}),
    "a part with a long name": state({"x" * 2**20: 1}),
    "a list": state([1, 2]),
    "tensors without names": everywhere({1: 2, None: 3}),
    "methods that are numbers": state(Build(OrderedDict, keys=5, items=5, get=5)),
    "parts with methods that are numbers": everywhere(Build(OrderedDict, keys=5, _metadata=5)),
}


def a_hostile_run(folder: Path, write: Write, marker: Path) -> Path:
    run = a_run(folder)
    checkpoint = run / "checkpoints" / "step-00000001"
    write(checkpoint / "state.pt", marker)
    signed(checkpoint, score=20.0)
    return run
