"""What is handed over in shared memory arrives whole, lies where it was written, and is left alone while it is used."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vqgan.data.reading.shared import Shared, dump, load

LARGE = torch.arange(30_000, dtype=torch.float64).reshape(100, 300)
VALUES = [
    {"text": "é" * 10_000, "bytes": bytes(10_000), "none": None, "path": Path("a/b")},
    LARGE, LARGE[:, ::2], LARGE.T, LARGE.bfloat16(), LARGE.half(), LARGE > 5, LARGE.to(torch.complex64),
    torch.zeros(0, 3), torch.tensor(7), torch.zeros(5000).expand(3, 5000),
    np.asfortranarray(LARGE.numpy()), np.zeros(0), np.arange(5000, dtype=">i4"), np.array(["a", "bc"] * 5000),
]  # fmt: skip


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_what_is_handed_over_is_the_same(value: Any, copied: bool) -> None:
    shared = Shared()
    size = dump([value, value], shared)
    found, again = load(shared.bytes(size), lent=None if copied else [])
    assert found is again
    if isinstance(value, Tensor):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert torch.equal(found, value)
        found.fill_(1)  # whoever has it may change it
    elif isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found, value)
        assert found.flags.writeable
    else:
        assert found == value


def test_another_process_sees_what_was_written_and_both_can_make_it_larger() -> None:
    ours = Shared(10)
    theirs = Shared(file=os.dup(ours.file))
    ours.bytes()[3] = 5
    assert theirs.bytes()[3] == 5
    before = ours.bytes()
    theirs.bytes(2**20)[2**20 - 1] = 7
    assert ours.bytes(2**20)[2**20 - 1] == 7
    before[0] = 9
    assert theirs.bytes()[0] == 9, "what one had of it before is still a part of it"
    private = ours.private(10)
    private[3] = 6
    assert ours.bytes()[3] == 5


def test_memory_is_in_use_while_any_view_of_it_is() -> None:
    """Or it would be written to under whoever looks at it."""
    shared, lent = Shared(), list[weakref.ref[Any]]()
    size = dump({"clips": LARGE, "small": torch.zeros(3)}, shared)
    found = load(shared.bytes(size), lent=lent)
    assert len(lent) == 1
    views = [found["clips"][3], found["clips"].numpy()[5:].T, found["clips"].view(torch.int64).flatten()]
    del found
    while views:
        assert lent[0]() is not None
        views.pop()
    assert lent[0]() is None


def test_shared_memory_in_what_is_handed_over_stays_shared() -> None:
    shared, inner, shares = Shared(), Shared(8), list[Shared]()
    size = dump([inner, LARGE], shared, shares)
    assert shares == [inner]
    theirs = Shared(file=os.dup(inner.file))
    found = load(shared.bytes(size), [theirs])
    found[0].bytes()[2] = 4
    assert inner.bytes()[2] == 4


def test_memory_that_nobody_has_is_given_back() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = opened()
    for _ in range(20):
        shared, lent = Shared(), list[weakref.ref[Any]]()
        load(shared.bytes(dump(LARGE, shared)), lent=lent)
        shared.private(100)
    del shared
    assert opened() <= before
