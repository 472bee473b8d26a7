"""Exported folders: descriptions and safetensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.hostile.attempts import CHECKPOINT, Attempt
from tests.faults.hostile.honest import DESCRIPTION, MIB, an_export, honest_state, small, with_value
from tests.faults.hostile.torch_files import pickled

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
    "format": [3, "1", None, [], {}],
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
