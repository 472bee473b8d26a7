"""What other projects' files may have beside plain data: what was typed, and names that are not looked for."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vqgan.errors import CheckpointError
from vqgan.files.plain_data import Unread, read_plain


def with_pickle(file: Path, content: bytes) -> Path:
    """A file as torch saves them, whose pickle is this one."""
    torch.save({}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, content if name.endswith("data.pkl") else value)
    return file


def test_what_was_typed_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    typed = argparse.Namespace(image_size=256, names=["a"], inner=argparse.Namespace(lr=1e-4))
    torch.save({"model": {"a": torch.ones(2)}, "args": typed}, tmp_path / "file.pt")
    assert read_plain(tmp_path / "file.pt", foreign=True)["args"] == typed
    with pytest.raises(CheckpointError, match="not plain data"):
        read_plain(tmp_path / "file.pt")


def endless() -> argparse.Namespace:
    typed = argparse.Namespace()
    typed.itself = [typed]
    return typed


@pytest.mark.parametrize(
    "typed",
    [endless(), argparse.Namespace(a=torch.ones(1).expand(2**40)), argparse.Namespace(__setstate__=5)],
    ids=["in itself", "a claim", "a method that is a number"],
)
def test_a_hostile_namespace_is_refused_or_plain(typed: Any, tmp_path: Path) -> None:
    torch.save({"args": typed}, tmp_path / "file.pt")
    if hasattr(typed, "__setstate__"):
        assert vars(read_plain(tmp_path / "file.pt", foreign=True)["args"]) == vars(typed)
        return
    with pytest.raises(CheckpointError):
        read_plain(tmp_path / "file.pt", foreign=True)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02clightning.pytorch.callbacks\nX\nU\x01a\x85R.",  # called with an argument
        b"\x80\x02cargparse\nArgumentParser\n)\x81.",
        b"\x80\x02cargparse\nNamespace\nU\x01a\x85R.",
        b"\x80\x02cpytorch_lightning\nX\n.",
        b"\x80\x02clightning_os.system\nX\n.",
        b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85\x81.",  # two gigabytes by NEWOBJ
        pickle.dumps(argparse.Namespace(a=1), protocol=4),
    ],
)
def test_whatever_else_is_named_or_made_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read_plain(with_pickle(tmp_path / "file.pt", content), foreign=True)


def test_a_class_of_lightning_is_a_name(tmp_path: Path) -> None:
    content = b"\x80\x02cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n."
    assert read_plain(with_pickle(tmp_path / "file.pt", content), foreign=True) is Unread
    with pytest.raises(CheckpointError):
        read_plain(tmp_path / "file.pt")
