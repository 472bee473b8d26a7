"""What a format makes of a tokenizer, before anything is written; and how a folder of it is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from vqgan.errors import StorageError
from vqgan.files.lock import filling

PICTURE = "reconstructions.png"


@dataclass
class Made:
    """A tokenizer in another form.

    Args:
        write: puts its files into a folder.
        use: lines of Python for the model card, with `{name}` for the folder; none for ours.
        library: whose model the card says it is.
        said: what is to be known of it, a sentence; printed, and in the card.
        takes_over: patterns of files that another tokenizer may have left, which are removed.
    """

    write: Callable[[Path], None]
    use: str = ""
    library: str = "vqgan"
    said: str = ""
    takes_over: Sequence[str] = ()


def write_out(made: Made, folder: Path, card: str, picture: Path | None) -> None:
    """Write a folder with its model card: all files take their places together, or none.

    Args:
        made: what is written.
        folder: made where it is missing.
        card: its text.
        picture: that the card shows as PICTURE, in another folder.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with filling(folder) as aside:
            made.write(aside)
            (aside / "README.md").write_text(card, encoding="utf-8")
            if picture is not None:
                shutil.copyfile(picture, aside / PICTURE)
            for file in aside.iterdir():
                file.chmod(0o644)  # to be shared; safetensors writes for the owner alone
            written = {file.name for file in aside.iterdir()}
        for file in (file for pattern in (*made.takes_over, PICTURE) for file in folder.glob(pattern)):
            if file.name not in written:
                file.unlink()
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StorageError(f"The tokenizer cannot be written to {folder}: {error}.") from None
