"""Devices and dtypes by name, and how a lack of memory is told from other errors."""

import pytest
import torch

from forejudge.device import (
    exact_float32,
    is_main_process,
    is_out_of_memory,
    launched_processes,
    resolve_device,
    resolve_dtype,
    resolve_precision,
)
from forejudge.errors import InvalidRequest
from tests.support.doubles import CPU


def test_a_device_that_is_not_here_is_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    names = ("cuda:99", "quantum", "hpu", "privateuseone", "meta", "vulkan", "mkldnn", "", "xla", "cpu:x", "q" * 3000)
    for name in names:
        with pytest.raises(InvalidRequest, match=f"device '{name[:9]}.* is not available here: use cpu") as caught:
            resolve_device(name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 150


def test_without_a_name_the_device_is_one_that_works() -> None:
    torch.zeros(1, device=resolve_device(None))


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    assert resolve_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(InvalidRequest, match="'int8' is unknown: use one of auto, float32, bfloat16, float16"):
        resolve_dtype("int8")


@pytest.mark.parametrize(
    ("device", "capability", "chosen"),
    [
        ("cuda", (9, 0), torch.bfloat16),
        ("cuda", (8, 0), torch.bfloat16),
        ("cuda", (7, 5), torch.float32),  # a T4, which says that it has bfloat16
        ("cpu", (9, 0), torch.float32),
        ("mps", (9, 0), torch.float32),
    ],
)
def test_the_dtype_suits_the_device(
    device: str, capability: tuple[int, int], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    assert resolve_dtype("auto", torch.device(device)) is chosen
    assert resolve_dtype("float16", torch.device(device)) is torch.float16


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
    ],
)
def test_training_is_in_bfloat16_where_a_processor_has_it(
    capabilities: dict[str, bool], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) is chosen
    assert resolve_precision("bfloat16", CPU) is torch.bfloat16
    assert resolve_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_fastest_device_is_taken(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setattr("torch.empty", lambda *_, **__: None)  # there is none of them here
    assert resolve_device(None).type == chosen


def test_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.1 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_shortened_float32_is_off_for_a_while_only() -> None:
    before = torch.backends.cudnn.allow_tf32
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before


LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
        (LAUNCHED, (1, 2)),
        (LAUNCHED | {"RANK": "0"}, (0, 2)),
        ({"RANK": "1"}, "RANK = 1: expected all of RANK, .*unset them to train in one process"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE = 2: expected"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK = 0: expected"),
        (LAUNCHED | {"RANK": "2"}, "RANK = 2, WORLD_SIZE = 2, .*: expected"),
        (LAUNCHED | {"WORLD_SIZE": "many"}, "WORLD_SIZE = many"),
        (LAUNCHED | {"RANK": "-1"}, "RANK = -1"),
    ],
)
def test_processes_that_train_together_are_those_of_a_launcher(
    variables: dict[str, str], expected: tuple[int, int] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if isinstance(expected, str):
        with pytest.raises(InvalidRequest, match=expected):
            launched_processes()
        assert is_main_process(), "it works alone"
    else:
        assert launched_processes() == expected
        assert is_main_process() == (expected[0] == 0)
