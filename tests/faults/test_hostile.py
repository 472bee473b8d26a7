"""Hostile checkpoints, configs, archives and headers: none has an effect, takes memory or time.

Each is read in a process of its own, forked from one that has all imported, by a real command or by the library's
functions. There it is measured: what it ends with, what it prints, its memory and time; and afterwards no file is new.
"""

from __future__ import annotations

import ast
import copy
import functools
import gc
import hashlib
import importlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.backbones.backbone import Backbone
from vqgan.config.build import conf_dir
from vqgan.errors import VQGANError
from vqgan.quantizers import EMAQuantizer, VectorQuantizer
from vqgan.runs.checkpoint import Checkpoints, _with_digest
from vqgan.tokenizer.taming import to_taming
from vqgan.tokenizer.tokenizer import rebuild

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux' /proc")

ROOT = Path(__file__).resolve().parents[2]
CONFIG, CHECKPOINT = 2, 7  # exit codes
MIB = 2**20
LARGEST = 512 * MIB  # a hostile file may take so much more than an honest one, in memory or address space
LONGEST, PATIENCE = 5.0, 60.0  # the processor's seconds that it may take; by the clock, after which it is ended
TOKEN, ADDRESS = "token-of-the-user-1234", "postgres://user:hunter22@host"  # what must not be printed
ENVIRONMENT = {"HOSTILE_TOKEN": TOKEN, "DATABASE_URL": ADDRESS}

BACKBONE: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 4, "channel_multipliers": [1, 1], "residual_blocks": 1,
    "attention_resolutions": [], "norm_groups": 2, "dropout": 0.0, "latent_channels": 4, "latent_dim": 4,
}  # fmt: skip
QUANTIZER: dict[str, Any] = {
    "codebook_size": 8, "latent_dim": 4, "commitment_weight": 0.25, "decay": 0.9, "eps": 1e-5,
    "start_from_data": True, "revive_after": None,
}  # fmt: skip
DESCRIPTION = {"format": 1, "backbone": BACKBONE, "quantizer": {"class": "EMAQuantizer", **QUANTIZER}}


# ------------------------------------------------------------------------------------------------------- the processes


def in_words_of_the_command(action: Callable[[], object]) -> None:
    """End as a command would."""
    warnings.showwarning = lambda message, *_, **__: print("Warning:", *str(message).split(), file=sys.stderr)
    try:
        action()
    except VQGANError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def parts() -> dict[str, Any]:
    network = nn.Linear(3, 3)
    return {"network": network, "optimizer": torch.optim.Adam(network.parameters())}


def command(*arguments: str) -> None:
    commands = importlib.import_module("vqgan.commands")
    sys.argv = ["vqgan", *arguments]
    commands.main()


def load(source: str) -> None:
    """`vqgan.load`, in a program that has a resolver `eval`, as many have."""
    OmegaConf.register_new_resolver("eval", eval)
    package = importlib.import_module("vqgan")
    in_words_of_the_command(lambda: package.load(source))


def load_latest(folder: str) -> None:
    in_words_of_the_command(lambda: Checkpoints(Path(folder), keep=1).load_latest(**parts()))


def read_best(folder: str) -> None:
    in_words_of_the_command(lambda: Checkpoints(Path(folder), keep=1).read_best())


def save_again(folder: str) -> None:
    in_words_of_the_command(lambda: Checkpoints(Path(folder), keep=1).save(100, score=1.0, **parts()))


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


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.faults.test_hostile import serve; serve()"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The folder in which everything happens, and below which nothing may be new; `deep` is where commands start."""
    (tmp_path / "world" / "deep" / "er").mkdir(parents=True)
    return tmp_path / "world"


@pytest.fixture
def marker(world: Path) -> Path:
    """The file that is there as soon as one of the attacks works."""
    return world / "marker"


@pytest.fixture
def attempted(server: subprocess.Popen[str], world: Path, tmp_path: Path) -> Attempt:
    """Try something, and check what holds for all: nothing new in the world, little memory, little time, no secret."""

    def run(entry: str, *arguments: str | Path, writes: bool = False) -> Ended:
        assert server.stdin is not None
        assert server.stdout is not None
        report, before = tmp_path / "report", tree(world)
        for file in tmp_path.glob("report.*"):
            file.unlink()
        request = {
            "entry": entry,
            "arguments": [str(a) for a in arguments],
            "folder": str(world / "deep" / "er"),
            "report": str(report),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        said = [report.with_suffix(f".{n}").read_text(errors="replace") for n in ("output", "error")]
        taken = report.with_suffix(".memory")
        ended = Ended(**answer, output=said[0], error=said[1], bytes=int(taken.read_text()) if taken.exists() else 0)
        assert not [path for path in tree(world) if "marker" in path], "the attack worked"
        if not writes:
            assert tree(world) == before
        assert ended.code is not None, f"it still ran after {PATIENCE:.0f} s: {ended.error[-2000:]}"
        assert "Traceback" not in ended.error, ended.error[-3000:]
        assert ended.bytes < LARGEST, f"it took {ended.bytes / MIB:.0f} MiB"
        assert ended.seconds < LONGEST
        assert len(ended.error) < 10_000, ended.error[:1000]
        for secret in (TOKEN, ADDRESS):
            assert secret not in ended.output + ended.error
        return ended

    return run


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


# ----------------------------------------------------------------------------------------------- honest runs, to spoil


@functools.cache
def honest_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = Autoencoder(Backbone(**BACKBONE), EMAQuantizer(**QUANTIZER)).state_dict()
    return state


def small() -> list[str]:
    """Overrides for a run of the sizes above."""
    sizes = {f"backbone.{k}": v for k, v in BACKBONE.items()} | {
        f"model.quantizer.{k}": v for k, v in QUANTIZER.items()
    }
    return [
        "logger=none", "trainer.steps=1", "trainer.device=cpu", "data.workers=0", "data.validation_clips=2",
        "data.batch_size=2", "data.videos=2", "data.video_frames=4", "discriminator.channels=4",
        *(f"{key}={'null' if value is None else value}" for key, value in sizes.items()),
    ]  # fmt: skip


@functools.cache
def honest_config() -> str:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["run_dir=run", *small()])
    return OmegaConf.to_yaml(config, resolve=False)


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save({"autoencoder": state}, file)
    return file.getvalue()


def a_run(folder: Path, config: str | None = None, state: Any = None) -> Path:
    """A run folder as training leaves it, with the config or the autoencoder's state replaced."""
    folder.mkdir()
    (folder / "config.yaml").write_text(honest_config() if config is None else grown(config))
    (folder / "overrides.yaml").write_text("[]")
    (folder / "metrics.jsonl").write_text('{"step": 1, "time": 0.0, "validation/psnr": 20.0}\n')
    checkpoint = folder / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(saved(honest_state() if state is None else state))
    signed(checkpoint, score=20.0)
    for link in ("latest", "best"):
        (folder / "checkpoints" / link).symlink_to(checkpoint.name)
    return folder


def an_export(folder: Path, description: object = DESCRIPTION, state: Mapping[str, Tensor] | None = None) -> Path:
    """An exported folder."""
    folder.mkdir()
    text = description if isinstance(description, str) else json.dumps(description)
    (folder / "config.json").write_text(grown(text))
    save_file(dict(state or honest_state()), folder / "model.safetensors")
    return folder


def grown(text: str) -> str:
    """A text as it is written: the words HUGE and MANY stand for what would make every fork slow."""
    if "HUGE" in text:
        return text.replace("HUGE", "x" * 100 * MIB)
    return text.replace('"MANY"', "[" + "1," * 10**7 + "1]") if "MANY" in text else text


def with_value(tree: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of nested dicts in which one value differs."""
    changed = copy.deepcopy(dict(tree))
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    node[last] = value
    return changed


def config_with(path: str, value: object) -> str:
    """The honest run's config.yaml in which one value differs."""
    return yaml.safe_dump(with_value(yaml.safe_load(honest_config()), path, value), sort_keys=False)


def signed(folder: Path, step: object = 1, score: object = None, **other: object) -> None:
    """Write a manifest that fits, as whoever makes a hostile checkpoint would."""
    file = folder / "state.pt"
    content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
    files = {"state.pt": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    manifest = {"step": step, "score": score, "torch": torch.__version__, "files": files, **other}
    (folder / "manifest.json").write_text(_with_digest(manifest))


def test_the_honest_run_and_export_are_read(attempted: Attempt, world: Path) -> None:
    run, export = a_run(world / "run"), an_export(world / "export")
    for source in (run, export):
        ended = attempted("load", source)
        assert (ended.code, ended.error) == (0, "")
    assert attempted("command", "export", run, "--out", world / "out", writes=True).code == 0
    assert attempted("load", world / "out").code == 0
    assert attempted("best", run / "checkpoints").code == 0


# ------------------------------------------------------------------------------------------------- files of torch.save


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


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_more_than_plain_data_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_hostile_run(world / "run", FILES[name], marker)
    for entry in (("load", run), ("latest", run / "checkpoints")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, (entry, ended)
        assert str(run) in ended.paragraph
        assert "weights_only" not in ended.paragraph  # torch's advice to read it without protection


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_the_same_file_is_refused_where_another_software_is_said_to_have_written_it(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    file = world / "deep" / "model.ckpt"
    FILES[name](file, marker)
    config = a_taming_config(world / "model.yaml")
    ended = attempted("command", "import-taming", file, "--config", config, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert str(file) in ended.paragraph


def test_weights_of_the_perceptual_network_run_no_code(attempted: Attempt, world: Path, marker: Path) -> None:
    for name in CALLS:
        FILES[f"calls {name}"](world / "vgg16.pth", marker)
        ended = attempted("perceptual", world / "vgg16.pth")
        assert ended.code == CONFIG, ended
        assert "weights_only" not in ended.paragraph


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.slow
def test_plain_data_that_are_no_network_are_refused(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "run", STRANGERS[name], marker)
    ended = attempted("load", run)
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph
    ended = attempted("latest", run / "checkpoints")
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph
    ended = attempted("command", "export", run, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.slow
def test_plain_data_that_are_no_network_are_not_imported(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    STRANGERS[name](world / "model.ckpt", marker)
    config = a_taming_config(world / "model.yaml")
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


HOSTILE = {"doubled": doubled(60), "endless": endless(), "number": 5, "methods": Build(OrderedDict, keys=5)}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", ["state", "param_groups", "exp_avg", "betas"])
@pytest.mark.slow
def test_an_optimizer_takes_no_hostile_state(name: str, key: str, attempted: Attempt, world: Path) -> None:
    state, value = {part: made.state_dict() for part, made in parts().items()}, HOSTILE[name]
    optimizer = state["optimizer"]
    if key == "exp_avg":
        optimizer["state"] = {0: {"step": 1.0, "exp_avg": value, "exp_avg_sq": value}}
    elif key == "betas":
        optimizer["param_groups"][0]["betas"] = value
    else:
        optimizer[key] = value
    folder = world / "checkpoints"
    (folder / "step-00000001").mkdir(parents=True)
    with (folder / "step-00000001" / "state.pt").open("wb") as file:
        torch.save(state, file)
    signed(folder / "step-00000001")
    ended = attempted("latest", folder)
    assert ended.code in (0, CONFIG, CHECKPOINT), ended


def expanded(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with strides of 0, which claim any shape by one number."""
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in shapes.items()}


def shared(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are all of one storage."""
    floats = torch.zeros(max(value.numel() for value in shapes.values() if value.is_floating_point()))
    return {
        name: floats[: value.numel()].view(value.shape)
        if value.is_floating_point()
        else torch.zeros_like(value, device="cpu")
        for name, value in shapes.items()
    }


@pytest.mark.parametrize(
    ("path", "size", "claim"),
    [
        ("model.quantizer.codebook_size", 2**24, expanded),
        ("backbone.channels", 1024, expanded),
        ("backbone.channels", 1024, shared),
    ],
)
def test_a_network_as_large_as_the_config_says_but_not_as_the_file_is_not_built(
    path: str, size: int, claim: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], attempted: Attempt, world: Path
) -> None:
    key = path.rpartition(".")[2]
    backbone, quantizer = ({**sizes, **({key: size} if key in sizes else {})} for sizes in (BACKBONE, QUANTIZER))
    with torch.device("meta"):
        shapes = Autoencoder(Backbone(**backbone), EMAQuantizer(**quantizer)).state_dict()
    run = a_run(world / "run", config_with(path, size), claim(shapes))
    assert (run / "checkpoints" / "latest" / "state.pt").stat().st_size < 64 * MIB
    for entry in (("load", run), ("command", "export", run, "--out", world / "out")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, ended
        assert ended.paragraph


def test_train_py_refuses_a_hostile_checkpoint_and_does_not_begin_anew(world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "run", FILES["calls os.system"], marker)
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", f"resume={run}"], cwd=world, capture_output=True, text=True, check=False
    )
    assert done.returncode == CHECKPOINT, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("name", ["calls os.system", "a zip bomb", "a file of old"])
def test_no_training_starts_from_hostile_weights(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "other", FILES[name], marker)
    ended = attempted("command", "train", f"init_from={run}", f"run_dir={world}/new", *small(), writes=True)
    assert ended.code == CHECKPOINT, ended
    assert str(run) in ended.paragraph


# ------------------------------------------------------------------------------------------- manifests, links, devices

MANIFESTS: dict[str, dict[str, Any]] = {
    "a step that is text": {"step": "1; touch marker"},
    "a step that is a fraction": {"step": 1.5},
    "a step without end": {"step": float("inf")},
    "a step that is no number": {"step": float("nan")},
    "a step below zero": {"step": -1},
    "a step of 4000 digits": {"step": 10**4000},
    "no step": {"step": None},
    "a list for a step": {"step": [1]},
    "true for a step": {"step": True},
    "files that climb out": {"files": {"../../marker": {"sha256": "", "bytes": 0}}},
    "a list of files": {"files": ["state.pt"]},
    "text for files": {"files": "state.pt"},
    "a list for a file": {"files": {"state.pt": ["sha256", "bytes"]}},
    "text for a size": {"files": {"state.pt": {"sha256": "", "bytes": "all"}}},
}
TEXTS: dict[str, str] = {
    "a list": "[1, 2]",
    "a number": "1",
    "nothing": "",
    "deep lists": "[" * 2**15 + "]" * 2**15,
    "deep dicts": '{"a":' * 10000 + "1" + "}" * 10000,
    "a hundred megabytes": '{"step": 1, "x": "HUGE"}',
    "a number of a million digits": '{"step": ' + "9" * 60000 + "}",
    "a digest for another text": _with_digest({"step": 1}).replace("1", "2", 1),
    "not utf-8": "\udcff",
}


@pytest.mark.parametrize("name", [*MANIFESTS, *TEXTS])
def test_a_hostile_manifest_is_refused(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    checkpoint = run / "checkpoints" / "step-00000001"
    if name in MANIFESTS:
        signed(checkpoint, **MANIFESTS[name])
    else:
        (checkpoint / "manifest.json").write_text(grown(TEXTS[name]), encoding="utf-8", errors="surrogateescape")
    for entry in (("load", run), ("latest", run / "checkpoints")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, (entry, ended)
        assert str(checkpoint) in ended.paragraph


@pytest.mark.parametrize(
    "score", [10**400, float("inf"), float("nan"), "high", [1], {"a": 1}], ids=lambda s: repr(s)[:10]
)
def test_a_hostile_score_stops_no_save(score: object, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    signed(run / "checkpoints" / "step-00000001", score=score)
    ended = attempted("save", run / "checkpoints", writes=True)
    assert (ended.code, ended.error) == (0, "")


def a_secret_folder(world: Path) -> Path:
    """Something of the user's, outside of the run."""
    folder = world / "of the user"
    folder.mkdir()
    (folder / "manifest.json").write_text("mine")
    (folder / "state.pt").write_text("mine")
    return folder


@pytest.mark.parametrize("link", ["best", "latest"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    link: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    outside = a_hostile_run(world / "outside", FILES["calls os.system"], marker) / "checkpoints" / "step-00000001"
    run = a_run(world / "run")
    (run / "checkpoints" / link).unlink()
    (run / "checkpoints" / link).symlink_to(outside)
    assert attempted("load", run).code == 0
    before = tree(outside)
    attempted("save", run / "checkpoints", writes=True)
    assert tree(outside) == before


@pytest.mark.parametrize(
    "name", ["step-00000000", "step-00000200", "step-00000001", ".unfinished-1", ".latest", ".unfinished-100"]
)
def test_a_checkpoint_that_is_a_link_costs_nothing_outside(name: str, attempted: Attempt, world: Path) -> None:
    run, outside = a_run(world / "run"), a_secret_folder(world)
    before = tree(outside)
    link = run / "checkpoints" / name
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(outside)
    attempted("latest", run / "checkpoints")
    attempted("save", run / "checkpoints", writes=True)
    assert tree(outside) == before


def lead_to_zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def lead_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


def make_folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "config.yaml", "metrics.jsonl"])
@pytest.mark.slow
def test_what_is_no_file_is_not_read_from_a_run(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    run = a_run(world / "run")
    checkpoint = run / "checkpoints" / "step-00000001"
    file = (run if name in ("config.yaml", "metrics.jsonl") else checkpoint) / name
    file.unlink()
    make(file)
    if name == "state.pt":
        signed(checkpoint)
    expected = {"config.yaml": (CONFIG, CHECKPOINT)}.get(name, (CHECKPOINT,))
    if name != "metrics.jsonl":
        ended = attempted("load", run)
        assert ended.code in expected, ended
        assert ended.paragraph
    ended = attempted("command", "export", run, "--out", world / "out", writes=name == "metrics.jsonl")
    assert ended.code in (*expected, *([0] if name == "metrics.jsonl" else [])), ended


@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "discriminator.safetensors"])
@pytest.mark.slow
def test_what_is_no_file_is_not_read_from_an_export(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    export = an_export(world / "export")
    (export / name).unlink(missing_ok=True)
    make(export / name)
    if name != "discriminator.safetensors":
        ended = attempted("load", export)
        assert ended.code == CHECKPOINT, ended
        assert ended.paragraph
    elif make is make_pipe:
        ended = attempted("command", "train", f"init_from={export}", f"run_dir={world}/new", *small(), writes=True)
        assert ended.code == CHECKPOINT, ended


METRICS = {
    "deep lists": "[" * 10000,
    "no step": "{}",
    "a number": "1",
    "text for a figure": '{"step": 1, "validation/psnr": "high"}',
    "a list for a figure": '{"step": 1, "validation/psnr": [1]}',
    "a figure of 400 digits": '{"step": 1, "validation/psnr": 1' + "0" * 400 + "}",
    "a list for a step": '{"step": [1]}',
    "nothing": "",
    "zeros": "\0",
}


@pytest.mark.parametrize("name", METRICS)
def test_hostile_metrics_stop_no_export(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (run / "metrics.jsonl").write_text(METRICS[name])
    ended = attempted("command", "export", run, "--out", world / "out", writes=True)
    assert ended.code == 0, ended


# ---------------------------------------------------------------------------------------------------------- reports


@pytest.mark.parametrize("name", METRICS)
def test_hostile_metrics_stop_no_report(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (run / "metrics.jsonl").write_text(METRICS[name])
    ended = attempted("command", "report", run, writes=True)
    assert ended.code == 0, ended


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "codebook.jsonl", "config.yaml", "environment.json", "bad_files.jsonl"]
)
@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
def test_what_is_no_file_is_not_read_into_a_report(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    run = a_run(world / "run")
    (run / name).unlink(missing_ok=True)
    make(run / name)
    ended = attempted("command", "report", run, writes=name != "metrics.jsonl")
    assert ended.code == (CONFIG if name == "metrics.jsonl" else 0), ended


@pytest.mark.parametrize("name", ["report.html", ".report.html"])
def test_a_report_is_not_written_over_what_a_link_leads_to(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (world / "mine").write_text("mine")
    (run / name).symlink_to(world / "mine")
    assert attempted("command", "report", run, writes=True).code == 0
    assert (world / "mine").read_text() == "mine"
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_a_report_of_large_files_takes_little_memory(attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    for name in ("metrics.jsonl", "bad_files.jsonl", "config.yaml", "environment.json"):
        with (run / name).open("wb") as file:
            file.truncate(2**34)
    with (run / "codebook.jsonl").open("w") as rows:
        rows.writelines(
            json.dumps({"step": n, "codebook_size": 9, "dead": 1, "perplexity": 2, "shares": [0.1] * 999}) + "\n"
            for n in range(2000)
        )
    ended = attempted("command", "report", run, writes=True)
    assert ended.code == 0, ended


# ---------------------------------------------------------------------------------------- descriptions and safetensors


NAN, INFINITE = float("nan"), float("inf")
VALUES: dict[str, list[Any]] = {
    "quantizer.class": ["os.system", "__import__", "Quantizer", "Module", "", None, ["EMAQuantizer"]],
    "quantizer.codebook_size": [2**24, 2**40, 2**62, 2**64, 10**400, -8, 0, NAN, INFINITE, "8", 8.5, None, True],
    "quantizer.eps": [NAN, "1", -1],
    "quantizer.decay": [NAN, INFINITE, 10**400],
    "quantizer.commitment_weight": [NAN, "0.25", None],
    "quantizer._target_": ["os.system"],
    "quantizer.self": [1],
    "backbone.channels": [10**9, 2**62, 2**64, 10**400, -4, 0, NAN, "4", 4.5, [4], {}],
    "backbone.residual_blocks": [10**5, 10**9, 2**64, 10**400, -1, 0, NAN, INFINITE, "1", 1.5],
    "backbone.channel_multipliers": [
        [1] * 10**5, [10**9], [10**400, 1], [-1, -1], [], "11", {"0": 1}, 5, [None], [NAN], [[1]],
    ],
    "backbone.resolution": [10**400 + 1, -16, 0, NAN, INFINITE, "16", 16.5],
    "backbone.attention_resolutions": [16, None, "16"],
    "backbone.norm_groups": [0, -2, 10**9, NAN, "2", 0.5],
    "backbone.image_channels": [10**9, -3, "3"],
    "backbone.latent_dim": [10**9, 2**62, INFINITE],
    "backbone.latent_channels": [10**9, 2**62, "4"],
    "backbone.dropout": [NAN, 1, -1, "0"],
    "backbone._target_": ["os.system"],
    "backbone.__class__": ["os.system"],
    "backbone": [None, [], "os.system", 1, {}],
    "quantizer": [None, [], "os.system", 1, {}],
    "format": [2, "1", None, [], {}],
}  # fmt: skip
DESCRIPTIONS: dict[str, Any] = {
    **{
        f"{path}={repr(value)[:20]}": with_value(DESCRIPTION, path, value)
        for path, values in VALUES.items()
        for value in values
    },
    "as many levels as the resolution has digits": with_value(
        with_value(DESCRIPTION, "backbone.resolution", 2**4095), "backbone.channel_multipliers", [1] * 4096
    ),
    "deep lists": "[" * 10**6,
    "deep dicts": '{"format":' * 10**5 + "1" + "}" * 10**5,
    "a hundred megabytes": json.dumps({**DESCRIPTION, "x": "HUGE"}),
    "a list of ten million": json.dumps(with_value(DESCRIPTION, "backbone.channel_multipliers", "MANY")),
    "a number of 10000 digits": '{"format": ' + "1" * 10000 + "}",
    "a list": "[1]",
    "nothing": "",
    "zeros": "\0" * 100,
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
@pytest.mark.slow
def test_a_hostile_description_is_refused(name: str, attempted: Attempt, world: Path) -> None:
    ended = attempted("load", an_export(world / "export", DESCRIPTIONS[name]))
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


def header(content: object, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(offsets: list[Any], shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


SAFETENSORS: dict[str, bytes] = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 90 megabytes that is not there": struct.pack("<Q", 90 * 10**6) + b"{}",
    "a header of twenty megabytes": header(b"{" + b" " * 2 * 10**7 + b"}"),
    "offsets that overlap": header({"a": entry([0, 4], [1]), "b": entry([0, 4], [1])}, bytes(4)),
    "offsets in the wrong order": header({"a": entry([4, 0], [1])}, bytes(4)),
    "offsets beyond the end": header({"a": entry([0, 2**40], [2**38])}, bytes(4)),
    "offsets below zero": header({"a": entry([-4, 0], [1])}, bytes(4)),
    "a shape of 2^64 numbers": header({"a": entry([0, 4], [2**32, 2**32])}, bytes(4)),
    "a shape that overflows to nothing": header({"a": entry([0, 0], [2**32, 2**32])}),
    "a shape below zero": header({"a": entry([0, 4], [-1])}, bytes(4)),
    "an unknown type": header({"a": entry([0, 4], [1], "object")}, bytes(4)),
    "a type of another size": header({"a": entry([0, 4], [1], "F64")}, bytes(4)),
    "deep lists": header(b'{"a":' + b"[" * 10**6, b""),
    "a hole": header({"a": entry([0, 4], [1]), "b": entry([8, 12], [1])}, bytes(12)),
    "the same name twice": header(b'{"a":%b,"a":%b}' % (2 * (json.dumps(entry([0, 4], [1])).encode(),)), bytes(4)),
    "metadata that are no text": header({"__metadata__": {"a": {"b": 1}}}),
    "a pickle": pickled({"a": 1}),
    "nothing": b"",
    "no tensors": header({}),
    "a hundred thousand tensors": header({str(n): entry([0, 0], [0]) for n in range(10**5)}),
    "a name that speaks to the terminal": header({"\x1b]0;x\x07\x1b[2J\nAll is well": entry([0, 4], [1])}, bytes(4)),
    "a name of a megabyte": header({"x" * MIB: entry([0, 4], [1])}, bytes(4)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_hostile_header_is_refused(name: str, attempted: Attempt, world: Path) -> None:
    export = an_export(world / "export")
    (export / "model.safetensors").write_bytes(SAFETENSORS[name])
    ended = attempted("load", export)
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph.isprintable()


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int64])
def test_tensors_of_another_type_are_refused(dtype: torch.dtype, attempted: Attempt, world: Path) -> None:
    state = honest_state() | {"quantizer.codebook": honest_state()["quantizer.codebook"].to(dtype)}
    ended = attempted("load", an_export(world / "export", state=state))
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


def test_a_hostile_discriminator_is_refused(attempted: Attempt, world: Path) -> None:
    export = an_export(world / "export")
    for name in ("a header of 2^63 bytes", "offsets that overlap"):
        (export / "discriminator.safetensors").write_bytes(SAFETENSORS[name])
        ended = attempted("command", "train", f"init_from={export}", f"run_dir={world}/new", *small(), writes=True)
        assert ended.code == CHECKPOINT, ended
        assert ended.paragraph


# --------------------------------------------------------------------------------------------- configs of other people


def laughs(first: str, opening: str, closing: str, name: str) -> str:
    """Nine times nine times … of something, in ten lines."""
    rows = [f"l{n}: {name.format(n)}{opening}" + closing.format(n - 1) * 9 for n in range(1, 10)]
    return "\n".join([first, *(row + ("]" if opening == "[" else "") for row in rows)]) + "\n"


ALIASES = laughs("l0: &l0 [x]", "[", "*l{},", "&l{} ")
REFERENCES = laughs("l0: xxxxxxxxx", "", "${{l{}}}", "")
LISTS_OF_REFERENCES = laughs("l0: [1]", "[", "'${{l{}}}',", "")

HIDDEN = "# " + "]" * 2**15 + "\n" + "[" * 2**14

Texts = dict[str, Callable[[], str]]  # with the word MARKER in place of the file that an attack makes


def value(path: str, value: object, more: str = "") -> Callable[[], str]:
    """The honest run's config in which one value differs."""
    return lambda: config_with(path, value) + more


def appended(text: str) -> Callable[[], str]:
    return lambda: honest_config() + text


def whole(text: str) -> Callable[[], str]:
    return lambda: text


SYSTEM = {"_target_": "os.system", "command": "touch MARKER"}
COPY = {"_target_": "shutil.copy", "src": __file__, "dst": "MARKER"}
RUN = {"_target_": "subprocess.run", "args": ["touch", "MARKER"]}
OPEN = {"_target_": "builtins.open", "file": "MARKER", "mode": "w"}
EVAL = '${eval:\'open("MARKER","w") and 4\'}'
# Of a run that somebody else gives: it cannot be told apart from a damaged one.
DAMAGED: Texts = {
    "a python object": appended("x: !!python/object/apply:os.system ['touch MARKER']"),
    "a new python object": appended("x: !!python/object/new:pathlib.Path ['MARKER']"),
    "a python name": appended("x: !!python/name:os.system ''"),
    "a billion laughs": appended(ALIASES),
    "laughs by references": value("backbone.channels", "${l9}", REFERENCES),
    "laughs by lists of references": value("backbone.channel_multipliers", "${l9}", LISTS_OF_REFERENCES),
    "a reference to itself": value("backbone.channels", "${backbone.channels}"),
    "references to each other": value("backbone.channels", "${a}", "a: ${b}\nb: ${a}\n"),
    "a hundred megabytes": appended("# HUGE"),
    "a megabyte of brackets": whole("[" * (MIB - 1)),
    "a page of brackets": whole("[" * 2**15),
    "a page of braces": appended("x: " + "{" * 2**15),
    "brackets that a comment seems to close": whole(HIDDEN),
    "a page of questions": whole("? " * 2**15),
    "half a megabyte of numbers": appended("x: [" + "1," * 2**18 + "1]"),
    "a number of 5000 digits": appended("x: " + "9" * 5000),
    "a time that is none": appended("x: !!timestamp 2001-99-99"),
    "a time that is text": appended("x: !!timestamp foo"),
    "a number that is text": appended("x: !!int foo"),
    "a truth that is text": appended("x: !!bool foo"),
    "text for the model": value("model", "os.system"),
    "a list for the model": value("model", [1]),
    "nothing for the quantizer": value("model.quantizer", None),
    "text for the quantizer": value("model.quantizer", "os.system"),
    "text for the backbone": value("backbone", "os.system"),
    "nothing for the backbone": value("backbone", None),
    "a backbone of nothing": value("backbone", {}),
    "a quantizer of nothing": value("model.quantizer", {}),
    "a number for a class": value("model.quantizer._target_", 7),
    "a quantizer os.system": value("model.quantizer", SYSTEM),
    "a quantizer shutil.copy": value("model.quantizer", COPY),
    "a quantizer subprocess.run": value("model.quantizer", RUN),
    "a size that is a call": value("backbone.channels", SYSTEM),
    "sizes that are calls": value("backbone.channel_multipliers", [COPY]),
    "a list of arguments": value("model.quantizer._args_", ["touch MARKER"]),
    "a token for a size": value("backbone.channels", "${oc.env:HOSTILE_TOKEN}"),
    "a token for a class": value("model.quantizer._target_", "vqgan.${oc.env:HOSTILE_TOKEN}"),
    "an address for a class": value("model.quantizer._target_", "vqgan.${oc.env:DATABASE_URL}"),
    "an address for a weight": value("model.quantizer.commitment_weight", "${oc.env:DATABASE_URL}"),
    "an address as a value that is not known": value("model.quantizer.x", "${oc.env:DATABASE_URL}"),
    "an address decoded": value("backbone.channels", "${oc.decode:${oc.env:DATABASE_URL}}"),
    "an address by a detour": value("backbone.channels", "${x}", "x: ${oc.env:DATABASE_URL}"),
    "a resolver of the program's": value("backbone.channels", EVAL),
    "a resolver in a resolver": value("backbone.channels", f"${{oc.select:'{EVAL}',4}}"),
    "as many blocks as there are numbers": value("backbone.residual_blocks", 10**9),
    "as many channels as there are numbers": value("backbone.channels", 2**62),
    "as many codes as there are numbers": value("model.quantizer.codebook_size", 2**40),
}
# Where nothing looks that only wants the sizes.
ELSEWHERE: Texts = {
    "an optimizer os.system": value("optimizer", SYSTEM),
    "a loss shutil.copy": value("loss", COPY),
    "data subprocess.run": value("data", RUN),
    "a logger open": value("logger.x", OPEN),
    "a schedule torch.hub.load": value("schedule", {"_target_": "torch.hub.load", "repo_or_dir": "MARKER"}),
    "a call among arguments": value("discriminator", {"_target_": "torch.nn.Identity", "args": [COPY], "kwargs": {}}),
    "a call in a section": value("discriminator", {"_target_": "torch.nn.Identity", "args": {"x": COPY}, "kwargs": {}}),
    "a callback of Hydra's": lambda: honest_config() + yaml.safe_dump({"hydra": {"callbacks": {"x": COPY}}}),
    "a name that is an address": value("name", "${oc.env:DATABASE_URL}"),
    "a resolver for a name": value("name", EVAL),
}


def text_of(texts: Texts, name: str, marker: Path) -> str:
    return texts[name]().replace("MARKER", str(marker))


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.slow
def test_a_hostile_config_in_a_run_of_others_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "run", text_of(DAMAGED, name, marker))
    for entry in (("load", run), ("command", "export", run, "--out", world / "out")):
        ended = attempted(*entry)
        assert ended.code in (CONFIG, CHECKPOINT), (entry, ended)
        assert ended.paragraph


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.slow
def test_what_is_no_size_in_a_config_of_others_is_not_looked_at(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "run", text_of(ELSEWHERE, name, marker))
    assert attempted("load", run).code == 0
    ended = attempted("command", "export", run, "--out", world / "out", writes=True)
    assert ended.code == 0
    for file in (world / "out").iterdir():
        assert ADDRESS.encode() not in file.read_bytes()


@pytest.mark.parametrize("name", [
    "a quantizer os.system", "a python object", "a billion laughs", "laughs by references", "a page of brackets",
    "an address for a class", "a resolver of the program's",
])  # fmt: skip
def test_a_hostile_config_does_nothing_when_training_starts_from_its_run(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "other", text_of(DAMAGED, name, marker))
    ended = attempted("command", "train", f"init_from={run}", f"run_dir={world}/new", *small(), writes=True)
    assert ended.code in (0, CONFIG, CHECKPOINT), ended


SPOILT = [
    *(name for name in ELSEWHERE if name != "a name that is an address"), "a quantizer os.system", "a python object",
    "a quantizer shutil.copy", "a quantizer subprocess.run", "a billion laughs", "a size that is a call",
    "sizes that are calls", "a list of arguments", "a page of brackets", "a token for a size", "a token for a class",
    "text for the model", "a hundred megabytes", "a number of 5000 digits", "a time that is text",
]  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.slow
def test_a_run_goes_on_by_a_config_that_builds_allowed_classes_only(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    text = text_of({**DAMAGED, **ELSEWHERE}, name, marker)
    run = a_run(world / "run", text)
    ended = attempted("command", "train", f"resume={run}", writes=True)
    assert ended.code == CONFIG, ended
    assert ended.paragraph
    assert (run / "config.yaml").read_text() == grown(text)


TYPED = {
    "a python object": "!!python/object/apply:os.system ['touch MARKER']",
    "a section": "a: 1",
    "no yaml": "[",
    "text": "x",
    "a page of brackets": "[" * 2**15,
    "brackets that a comment seems to close": HIDDEN,
    "aliases": "\n".join(["- &l0 [x, x]", *(f"- &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, 40))]),
    "a section in a list": "- [a, {b: c}]",
    "a hundred megabytes": "# HUGE",
}


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.slow
def test_what_was_typed_for_a_run_is_read_as_text(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_run(world / "run")
    (run / "overrides.yaml").write_text(grown(TYPED[name].replace("MARKER", str(marker))))
    ended = attempted("command", "train", f"resume={run}", "trainer.steps=1", writes=True)
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph


# ------------------------------------------------------------------------------------------------------- import-taming

TAMING: dict[str, Any] = {
    "target": "taming.models.vqgan.VQModel",
    "params": {
        "embed_dim": 4, "n_embed": 8,
        "ddconfig": {"double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
                     "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
        "lossconfig": {"target": "x", "params": {"disc_ndf": 64, "disc_num_layers": 2}},
    },
}  # fmt: skip


def taming(path: str, value: object) -> Callable[[], str]:
    """The honest config of another software in which one value differs."""
    return lambda: yaml.safe_dump(with_value({"model": TAMING}, f"model.{path}", value), sort_keys=False)


def a_taming_config(file: Path, text: str | None = None) -> Path:
    file.write_text(yaml.safe_dump({"model": TAMING}) if text is None else text)
    return file


@functools.cache
def taming_state() -> dict[str, Tensor]:
    backbone = Backbone(**BACKBONE | {"channels": 32, "norm_groups": 32})
    return to_taming(Autoencoder(backbone, VectorQuantizer(8, 4, 1.0, 0.25)).state_dict(), None)


LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2**15, "out_features": 2**15}
TAMING_CONFIGS: Texts = {
    "a python object": whole("model: !!python/object/apply:os.system ['touch MARKER']"),
    "no yaml": whole("model: ["),
    "a list": whole("- 1"),
    "text": whole("text"),
    "nothing": whole(""),
    "text for the model": whole("model: os.system"),
    "a list for the model": whole("model: [1]"),
    "a billion laughs": whole(ALIASES),
    "a page of brackets": whole("[" * 2**15),
    "brackets that a comment seems to close": whole(HIDDEN),
    "a hundred megabytes": whole("# HUGE"),
    "a number of 5000 digits": whole("model: " + "9" * 5000),
    "a time that is text": whole("model: !!timestamp foo"),
    "bytes that are no text": whole("model: \udcff"),
    "text for the parameters": taming("params", "os.system"),
    "text for the sizes": taming("params.ddconfig", "os.system"),
    "a list for the sizes": taming("params.ddconfig", [1]),
    "text for the loss": taming("params.lossconfig", "os.system"),
    "text for the values of the loss": taming("params.lossconfig.params", "os.system"),
    "a size that is a call": taming("params.ddconfig.ch", SYSTEM),
    "a size that is a copy": taming("params.ddconfig.ch", COPY),
    "sizes that are copies": taming("params.ddconfig.ch_mult", [COPY]),
    "a size that is a network": taming("params.ddconfig.ch", LINEAR),
    "a size that is a module": taming("params.ddconfig.ch", {"_target_": "this.c"}),
    "a token for a size": taming("params.ddconfig.ch", "${oc.env:HOSTILE_TOKEN}"),
    "an address for a size": taming("params.ddconfig.ch", "${oc.env:DATABASE_URL}"),
    "a class os.system": taming("target", "os.system"),
    "a number for a class": taming("target", 7),
    "a first stage os.system": taming("params.first_stage_config", "os.system"),
    "a first stage without values": taming("params.first_stage_config", {"target": "os.system"}),
    "a terabyte of codes": taming("params.n_embed", 2**40),
    "codes below zero": taming("params.n_embed", -1),
    "text for the codes": taming("params.n_embed", "8"),
    "nothing for the codes": taming("params.n_embed", None),
    "a fraction of the codes": taming("params.n_embed", 8.5),
    "as many blocks as there are numbers": taming("params.ddconfig.num_res_blocks", 10**9),
    "as many channels as there are numbers": taming("params.ddconfig.ch", 32 * 2**50),
    "a resolution that is text": taming("params.ddconfig.resolution", "x"),
    "a dimension that is text": taming("params.embed_dim", "x"),
}


def test_the_honest_checkpoint_is_imported(attempted: Attempt, world: Path) -> None:
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    config = a_taming_config(world / "model.yaml")
    out = world / "out"
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", out, writes=True)
    assert (ended.code, ended.error) == (0, "")


@pytest.mark.parametrize("name", TAMING_CONFIGS)
@pytest.mark.slow
def test_a_hostile_config_of_another_software_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    config = world / "model.yaml"
    config.write_text(grown(text_of(TAMING_CONFIGS, name, marker)), errors="surrogateescape")
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", world / "out")
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph
    assert "The Zen of Python" not in ended.output


def test_what_is_printed_to_be_typed_runs_nothing_else(attempted: Attempt, world: Path, marker: Path) -> None:
    """The command for further training has values from the config: a shell must take them for what they are."""
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    text = taming("params.lossconfig.params.disc_ndf", f"$(touch {marker})")()
    config, out = a_taming_config(world / "model.yaml", text), world / "out"
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", out, writes=True)
    assert ended.code in (0, CONFIG), ended
    for line in ended.output.splitlines():
        subprocess.run(["sh", "-c", line.replace("python", "echo")], cwd=world, capture_output=True, check=False)
    assert not marker.exists()


# ----------------------------------------------------------------------------------------------------- the source text

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "shelve.open", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "os.system", "os.popen", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "torch.serialization.add_safe_globals", "torch.serialization.safe_globals",
}  # fmt: skip
WORDS = ("weights_only=False", "pickle.load", "yaml.load(", "unsafe_load", "allow_pickle=True", "shell=True")
# A program, of which the one whose SHA-256 is published is the only one that is run.
CHECKED = {("vqgan/evaluation/networks.py", "torch.jit.load")}
LOADING = ("torch.load", "torch.hub.load_state_dict_from_url")


def test_nothing_in_the_package_reads_what_could_run_code() -> None:
    found = []
    for file in [*(ROOT / "vqgan").rglob("*.py"), ROOT / "train.py"]:
        text = file.read_text()
        assert not [word for word in WORDS if word in text], file
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            protected = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            checked = (str(file.relative_to(ROOT)), name) in CHECKED
            if (name in FORBIDDEN and not checked) or (name in LOADING and not protected):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found, found


def test_the_hostile_inputs_are_many() -> None:
    groups: list[Mapping[str, Any]] = [
        FILES, STRANGERS, HOSTILE, MANIFESTS, TEXTS, METRICS, DESCRIPTIONS, SAFETENSORS, DAMAGED, ELSEWHERE, TYPED,
        TAMING_CONFIGS,
    ]  # fmt: skip
    assert sum(map(len, groups)) >= 300
