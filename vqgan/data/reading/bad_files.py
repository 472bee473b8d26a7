"""What cannot be used: the reason, and the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vqgan.errors import DataError
from vqgan.files.reading import load_json
from vqgan.files.writing import storing
from vqgan.runtime.process import Process
from vqgan.video.file import CUT_OFF


def ledger(out: Path, process: Process) -> BadFiles:
    """What this process finds that cannot be used, of which any number is allowed."""
    suffix = f"-{process.rank:03}" if process.count > 1 else ""
    return BadFiles(out / f"bad_files{suffix}.jsonl", max_fraction=1.0, max_files=0)


class BadFiles:
    """The ledger of what could not be used: in `bad_files.jsonl`, once per path and reason, and counted.

    Args:
        file: where the ledger is kept. What an earlier part of the run wrote is not repeated, nor is it counted: the
            files may have been mended since.
        max_fraction: of all files; beyond it the run ends.
        max_files: so many bad files never end a run: one text file should not stop a folder of ten videos.
        writes: whether this process keeps the ledger; others count only.
    """

    def __init__(self, file: Path, max_fraction: float, max_files: int, writes: bool = True) -> None:
        self.file, self.max_fraction, self.max_files, self.writes = file, max_fraction, max_files, writes
        self.total = 0
        self.reasons: dict[str, str] = {}
        content = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        self.written = set(_entries(content))
        if writes and content and not content.endswith("\n"):  # the last line of a run that was killed
            with storing(file), file.open("a", encoding="utf-8") as ledger:
                ledger.write("\n")

    def add(self, path: Path | str, reason: str) -> None:
        """Write one file down, unless it is known already.

        Raises:
            DataError: more files are bad than the budget allows.
        """
        if str(path) in self.reasons:
            return
        self.reasons[str(path)] = reason
        if self.writes and (str(path), reason) not in self.written:
            # A name that is not UTF-8 is written as JSON's own escapes.
            with storing(self.file), self.file.open("a", encoding="utf-8", errors="backslashreplace") as ledger:
                ledger.write(json.dumps({"path": str(path), "reason": reason}, ensure_ascii=False) + "\n")
        self.check_budget()

    def check_budget(self) -> None:
        """Raise `DataError` if more files are bad than the budget allows; nothing is judged before `total` is known."""
        budget = max(self.max_files, self.max_fraction * self.total)
        if self.total and len(self.reasons) > budget:
            raise DataError(
                f"{len(self.reasons)} of {self.total} files cannot be used ({self.summary()}), more than "
                f"data.max_bad_fraction={self.max_fraction} and data.max_bad_files={self.max_files} allow. "
                f"They are listed in {self.file}. Mend or remove them, or raise data.max_bad_fraction."
            )

    def said(self) -> str:
        """How many cannot be used, and how many end early and are used as far as they go; with the reasons."""
        cut = sum(reason.startswith(CUT_OFF) for reason in self.reasons.values())
        lost = Counter(reason.partition(":")[0] for reason in self.reasons.values() if not reason.startswith(CUT_OFF))
        reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
        parts = [f"{lost.total()} cannot be used: {reasons}"] if lost else []
        parts += [f"{cut} cut off, and used up to there"] * (cut > 0)
        return "; ".join(parts)

    def summary(self) -> str:
        """Counts per reason: `2 no video stream, 1 empty file`."""
        reasons = Counter(reason.partition(":")[0] for reason in self.reasons.values())
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _entries(content: str) -> Iterator[tuple[str, str]]:
    for line in content.split("\n"):  # names may hold what `splitlines` takes for an end of line
        try:
            entry = load_json(line)
            yield str(entry["path"]), str(entry["reason"])
        except (ValueError, LookupError, TypeError):  # of a run that was killed, or of a stranger
            continue
