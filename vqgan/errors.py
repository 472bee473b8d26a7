"""What can go wrong for a user, each with its promised exit code. A traceback is for our own bugs.

Every message is one paragraph: what is wrong, where (the yaml key or the file), what to do.
"""

from __future__ import annotations

from vqgan.text import printable


class UnusableError(Exception):
    """A file or clip that cannot be used; the message is the reason, a few words."""


class VQGANError(Exception):
    """An error that a user can mend; `exit_code` is what the process ends with."""

    exit_code = 1

    def __str__(self) -> str:
        """The paragraph; what it quotes from files cannot speak to the terminal."""
        return printable(super().__str__())


class ConfigError(VQGANError):
    """The configuration asks for something that cannot be."""

    exit_code = 2


def missing_extra(what: str, extra: str) -> ConfigError:
    """The error for what needs packages that only an extra brings."""
    return ConfigError(
        f'{what} needs an extra: pip install -c constraints.txt -e ".[{extra}]" in a checkout; where a wheel was '
        f'installed, pip install "FILE.whl[{extra}]" with its name.'
    )


class InvalidValueError(ConfigError):
    """A value out of its range or of the wrong type. `key` is the yaml key, as far as the one who checks knows it."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} must be {expected}, but is {value!r}.")
        self.key, self.value, self.expected = key, value, expected

    def __reduce__(self) -> tuple[type[InvalidValueError], tuple[str, object, str]]:
        """For processes of a sweep, which send their errors to the one that waits for them."""
        return type(self), (self.key, self.value, self.expected)

    def under(self, path: str) -> InvalidValueError:
        """The same error seen from further out: `decay` becomes `model.quantizer.decay`."""
        return InvalidValueError(f"{path}.{self.key}" if path else self.key, self.value, self.expected)


class DataError(VQGANError):
    """The folder holds nothing usable, or too much that is not."""

    exit_code = 3


class DivergedError(VQGANError):
    """A loss is no longer a finite number."""

    exit_code = 4


class StorageError(VQGANError):
    """The disk is full, read-only or gone, or memory ran out."""

    exit_code = 5


class RunFolderInUseError(VQGANError):
    """Another process trains in this run folder."""

    exit_code = 6


class LostProcessError(VQGANError):
    """Another process of the same run has ended; torchrun ends with 1 whatever the reason, and so does this one."""


class CheckpointError(VQGANError):
    """A checkpoint is damaged, unsafe or does not fit the model."""

    exit_code = 7


class StoppedError(VQGANError):
    """A signal asked the run to stop; everything is saved."""

    exit_code = 143


class PrunedError(VQGANError):
    """A search has stopped the run, since others promise more; nothing went wrong."""

    exit_code = 0


def exit_code_of(error: BaseException | None) -> int:
    """What a process ends with that this ended; 1 for our own bugs, 0 for none."""
    return 0 if error is None else error.exit_code if isinstance(error, VQGANError) else 1


def check(holds: bool, key: str, value: object, expected: str) -> None:
    """Raise `InvalidValueError` unless `holds`: the one-line range check of every constructor."""
    if not holds:
        raise InvalidValueError(key, value, expected)
