"""Devices and dtypes by name, and how a lack of memory is told from other errors."""

import pytest
import torch

from forejudge.device import exact_float32, is_out_of_memory, resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest


def test_a_device_that_is_not_here_is_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "quantum"):
        with pytest.raises(InvalidRequest, match=f"device '{name}' is not available here") as caught:
            resolve_device(name)
        assert "\n" not in str(caught.value)


def test_without_a_name_the_device_is_one_that_works() -> None:
    torch.zeros(1, device=resolve_device(None))


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    assert resolve_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(InvalidRequest, match="'int8' is unknown: use one of float32, bfloat16, float16"):
        resolve_dtype("int8")


def test_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_shortened_float32_is_off_for_a_while_only() -> None:
    before = torch.backends.cudnn.allow_tf32
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before
