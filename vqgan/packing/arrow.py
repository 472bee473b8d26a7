"""A pack as Hugging Face's `datasets` keeps it on the disk: `load_from_disk` opens it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqgan.errors import missing_extra
from vqgan.files.writing import replace_text, whole
from vqgan.packing.plan import Split
from vqgan.packing.writer import Packer
from vqgan.tokens.folder import Tokens

if TYPE_CHECKING:
    import datasets


@dataclass
class DatasetsPacker(Packer):
    """Writes a row per document: `input_ids`, `path`, `first`, `shape`, and `side` where there is side data.

    `side` is a list of rows, each of which is a list of numbers, or a number where a row is one.

    Raises:
        ConfigError: the package `datasets` is not installed.
    """

    kind = "datasets"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            from datasets import Features, List, Value
        except ImportError:
            raise missing_extra("--format datasets", "hub") from None
        columns = {
            "input_ids": List(Value("int32")),
            "path": Value("string"),
            "first": Value("int64"),
            "shape": List(Value("int64")),
        }
        if self.side is not None:
            dtype, row = self.side
            number = Value(dtype.newbyteorder("=").name)
            columns["side"] = List(List(number)) if row else List(number)
        self.features: datasets.Features = Features(columns)

    def write_chunk(self, tokens: Tokens, split: Split, chunk: int) -> str:
        """Write the rows of one chunk to a file of their own; see `Packer.write_chunk`."""
        import pyarrow

        schema = self.features.arrow_schema
        file = self.out / split.name / _name(split, chunk)
        with whole(file) as aside, aside.open("xb") as new:
            with pyarrow.ipc.new_stream(new, schema) as stream:
                for _, span in self.checked_spans(tokens, split, chunk):
                    record, _ = tokens.records[span.video]
                    row = {
                        "input_ids": np.concatenate(list(self.lines(tokens, span))).astype(np.int32),
                        "path": record.path,
                        "first": span.first,
                        "shape": [span.times, *record.shape[1:]],
                    }
                    if self.side is not None:
                        rows = self.rows(tokens, span)
                        row["side"] = list(rows.reshape(len(rows), -1)) if self.side[1] else rows
                    values = [pyarrow.array([row[column.name]], column.type) for column in schema]
                    stream.write_batch(pyarrow.record_batch(values, schema=schema))
            new.flush()
            os.fsync(new.fileno())
        return str(file.stat().st_size)

    def is_there(self, split: Split, chunk: int, mark: str) -> bool:
        """See `Packer.is_there`."""
        file = self.out / split.name / _name(split, chunk)
        return file.exists() and str(file.stat().st_size) == mark

    def finish_split(self, split: Split) -> None:
        """Write what `load_from_disk` reads first."""
        folder = self.out / split.name
        state = {
            "_data_files": [{"filename": _name(split, chunk)} for chunk in range(len(split.chunks))],
            "_fingerprint": self.meta["source"][:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split.name,
        }
        _write_json(folder / "state.json", state)
        _write_json(folder / "dataset_info.json", {"features": self.features.to_dict()})
        _write_json(self.out / "dataset_dict.json", {"splits": [each.name for each in self.splits]})


def _name(split: Split, chunk: int) -> str:
    return f"data-{chunk:05}-of-{len(split.chunks):05}.arrow"


def _write_json(file: Path, content: object) -> None:
    replace_text(file, json.dumps(content, indent=1) + "\n")
