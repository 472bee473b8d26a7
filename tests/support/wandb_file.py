"""Reads what W&B keeps of an offline run: a `.wandb` file, which is a log of records in LevelDB's format.

It needs protobuf modules that W&B calls its own, so it is for tests alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 2**15, 7  # bytes: of a block, and of a file's, and a chunk's, header


@dataclass
class OfflineRun:
    """What the records of a file say."""

    run: Any = None  # the record of the run itself: run_id, display_name, run_group, job_type, tags
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)  # what define_metric said, by name
    alerts: list[Any] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    preempting: bool = False

    def artifact(self, kind: str) -> Any:
        """The last artifact of a type."""
        return [artifact for artifact in self.artifacts if artifact.type == kind][-1]


def read(file: Path) -> OfflineRun:
    """All that a file holds."""
    found = OfflineRun()
    for content in records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                _update(found.config, record.run.config.update)
            case "config":
                _update(found.config, record.config.update)
            case "history":
                _update(row := {}, record.history.item)
                found.history.append(row)
            case "summary":
                _update(found.summary, record.summary.update)
            case "metric":
                found.metrics[record.metric.name or record.metric.glob_name] = record.metric
            case "alert":
                found.alerts.append(record.alert)
            case "artifact":
                found.artifacts.append(record.artifact)
            case "exit":
                found.exit_code = record.exit.exit_code
            case "preempting":
                found.preempting = True
            case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                found.artifacts.append(record.request.log_artifact.artifact)
    return found


def records(content: bytes) -> Iterator[bytes]:
    """The records, made of chunks: checksum (4 bytes), length (2), whole or first or middle or last (1), content."""
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too little for another chunk
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # whole, or the last
            yield parts
            parts = b""


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        inner = values
        *path, name = item.nested_key or [item.key]
        for key in path:
            inner = inner.setdefault(key, {})
        inner[name] = json.loads(item.value_json)
