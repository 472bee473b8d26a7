"""What was looked at, in a line, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    said: str
    values: Mapping[str, Any] = field(default_factory=dict)  # the same for programs: plain data
    change: str | None = None  # a sentence: what to do about it, if anything


def found(looks: Iterable[tuple[str, Callable[[], Finding]]]) -> list[Finding]:
    """What each look finds; one that fails is a finding too, since a broken machine is what they are for."""
    findings = []
    for name, look in looks:
        try:
            findings.append(look())
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            findings.append(Finding(name, f"cannot be told: {reason}", {"error": reason}))
    return findings
