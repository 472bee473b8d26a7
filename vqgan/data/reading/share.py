"""A folder of videos of each of which something is written: the share of one process, and what is left of it to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.files import find_files
from vqgan.data.videos import VIDEO_FILES
from vqgan.errors import DataError
from vqgan.files.state import FileState, refuse_others, state_of
from vqgan.runtime.process import Process


class Share:
    """The videos that one of several processes does.

    Args:
        root: their folder, or one video.
        process: whose share it is.
        order: by which videos are sorted, of a name; None for that of their paths.

    Raises:
        DataError: there are none.
    """

    def __init__(self, root: Path, process: Process, order: Callable[[str], int] | None = None) -> None:
        self.root, self.process = root, process
        self.base = root.parent if root.is_file() else root  # what their names are below
        files = [root] if root.is_file() else find_files(root, "VIDEOS", VIDEO_FILES.suffixes)
        if order is not None:
            files.sort(key=lambda file: order(self.name(file)))
        self.files = files[process.rank :: process.count]
        self.states: dict[str, FileState | None] = {}  # by name, before anything is read
        self.done: Mapping[str, FileState | None] = {}
        self.left = self.files

    def name(self, file: Path) -> str:
        """What a video is called in what is written of it: its path below the folder."""
        return file.relative_to(self.base).as_posix()

    def leave_out(self, done: Mapping[str, FileState | None], out: Path) -> None:
        """Leave out what has been done in the folder `out`: the names of videos, and which files they were.

        Raises:
            ConfigError: they were other files than these.
        """
        self.done, self.states = done, {self.name(file): state_of(file) for file in self.files}
        refuse_others(out, done, self.states)
        self.left = [file for file in self.files if self.name(file) not in done]

    def refuse_if_none(self, written: int, bad_files: BadFiles) -> None:
        """Raise `DataError` if of all videos none could be used, now or before.

        One of several processes may have had bad luck with its few files, and must not end the others.
        """
        if self.left and not written and not self.done and self.process.count == 1:
            raise DataError(
                f"None of the {len(self.files)} files of {self.root} can be used ({bad_files.summary()}). They are "
                f"listed in {bad_files.file}."
            )
