"""What processes say when they cannot go on together."""

from __future__ import annotations

import types

import pytest
import torch
import torch.distributed as dist

from vqgan.errors import ConfigError, LostProcessError
from vqgan.runtime import collectives
from vqgan.runtime.collectives import raising_lost_process

TOLD = "its own message says why"
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, invalid usage (run with NCCL_DEBUG=WARN for "
    "details), NCCL version 2.27.5\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\n"
    "Last error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000\n"
)
TIMEOUT = "The client socket has timed out after 60000ms.\nException raised from connect\nframe #0: c10::Error::Error"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (dist.DistBackendError(NCCL), "NCCL version 2.27.5 (Duplicate GPU detected : rank 1 and rank 0 both on CUDA"),
        (dist.DistNetworkError(TIMEOUT), "here: The client socket has timed out after 60000ms."),
        (RuntimeError("[gloo/pair.cc:534] Connection closed by peer"), "here: [gloo/pair.cc:534] Connection closed by"),
    ],
    ids=["NCCL", "network", "gloo"],
)
def test_what_was_noticed_stands_beside_the_guess(error: RuntimeError, said: str) -> None:
    with pytest.raises(LostProcessError, match=TOLD) as lost, raising_lost_process():
        raise error
    assert said in str(lost.value)
    assert "frame" not in str(lost.value)
    assert lost.value.exit_code == 1


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="a bug"), raising_lost_process():
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([("here", "b"), ("here", "c")], None),
        ([("here", "a"), ("here", "b")], "trainer.device: processes 0 and 1, on here, have the same GPU"),
        ([("there", "b"), ("there", "b")], "trainer.device: processes 1 and 2, on there, have the same GPU"),
    ],
    ids=["one each", "this one's", "others'"],
)
def test_two_processes_with_one_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, others: list[tuple[str, str]], message: str | None
) -> None:
    """As where a launcher shows each process its own GPU, all are number 0 here."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="a"))
    monkeypatch.setattr(collectives, "gather", lambda own: [own, *others])
    if message is None:
        collectives.refuse_shared_gpu(torch.device("cuda", 0))
        return
    with pytest.raises(ConfigError, match=message) as error:
        collectives.refuse_shared_gpu(torch.device("cuda", 0))
    assert error.value.exit_code == 2


def test_processors_may_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "gather", lambda own: [own, own])
    collectives.refuse_shared_gpu(torch.device("cpu"))
