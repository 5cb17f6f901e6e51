"""Statistics beside a published verifier: shapes that are read, and values that are refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from forejudge.config_files import read_config
from forejudge.errors import CheckpointError
from forejudge.verifiers.published_format import PublishedConfig, find_statistics, read_statistics, write_statistics
from tests.support.official import OFFICIAL


def saved(folder: Path, mean: object, variance: object) -> tuple[Path, Path]:
    files = folder / "block_7_mean_fp32.pt", folder / "block_7_variance_fp32.pt"
    for path, value in zip(files, (mean, variance), strict=True):
        torch.save(value, path)
    return files


@pytest.mark.parametrize(
    ("shape", "kind", "held"),
    [((1, 6), "channel", (6,)), ((16,), "token", (16, 1)), ((1,), "global", (1,))],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_shape_tells_the_kind(
    tmp_path: Path, shape: tuple[int, ...], kind: str, held: tuple[int, ...], dtype: torch.dtype
) -> None:
    mean, variance = torch.randn(shape).to(dtype), torch.rand(shape).to(dtype)
    found = read_statistics(saved(tmp_path, mean, variance), width=6, tokens=16)
    assert (found.kind, found.mean_D.shape, found.variance_D.dtype) == (kind, held, dtype)
    again = tmp_path / "again"
    again.mkdir()
    write_statistics(found, again, block=7)
    for path, tensor in zip(find_statistics(again, block=7), (mean, variance), strict=True):
        assert torch.equal(torch.load(path, weights_only=True), tensor)


@pytest.mark.parametrize("shape", [(6,), (1, 16), (16, 1), (1, 1), (1, 16, 6), (), (8,), (0,)])
def test_another_shape_is_refused_with_those_that_are_known(tmp_path: Path, shape: tuple[int, ...]) -> None:
    said = r"expected \(1, 6\) for each channel, \(16,\) for each token or \(1,\) for all values"
    with pytest.raises(CheckpointError, match=said):
        read_statistics(saved(tmp_path, torch.ones(shape), torch.ones(shape)), width=6, tokens=16)


@pytest.mark.parametrize("tokens", [16, None])
def test_a_shape_that_may_be_either_is_refused(tmp_path: Path, tokens: int | None) -> None:
    with pytest.raises(CheckpointError, match=r"has shape \(16,\), which may mean channels or tokens"):
        read_statistics(saved(tmp_path, torch.ones(16), torch.ones(16)), width=16, tokens=tokens)
    found = read_statistics(saved(tmp_path, torch.ones(1, 16), torch.ones(1, 16)), width=16, tokens=16)
    assert found.kind == "channel"


def test_any_number_of_tokens_fits_an_unknown_generator(tmp_path: Path) -> None:
    found = read_statistics(saved(tmp_path, torch.ones(9), torch.ones(9)), width=6)
    assert (found.kind, found.tokens) == ("token", 9)


@pytest.mark.parametrize(
    ("mean", "variance", "said"),
    [
        (torch.ones(1, 6), torch.ones(1), r"variance_fp32\.pt has shape \(1,\), .* has \(1, 6\): expected the same"),
        (torch.ones(1), -torch.ones(1), "negative values"),
        (torch.tensor([torch.nan]), torch.ones(1), "is not a statistic"),
        (torch.ones(1, dtype=torch.int64), torch.ones(1), "is not a statistic"),
        ({"mean": torch.ones(1)}, torch.ones(1), "is not a statistic"),
        (Path("code"), torch.ones(1), "cannot be loaded"),  # a class of its own is not unpickled
    ],
)
def test_other_values_are_refused(tmp_path: Path, mean: object, variance: Tensor, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_statistics(saved(tmp_path, mean, variance), width=6, tokens=16)


def test_files_of_the_block_alone_are_found_in_any_subfolder(tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    files = saved(tmp_path / "norm", torch.ones(1), torch.ones(1))
    torch.save(torch.ones(1), tmp_path / "block_17_mean_fp32.pt")
    assert find_statistics(tmp_path, block=7) == files
    with pytest.raises(CheckpointError, match="holds no statistics"):
        find_statistics(tmp_path, block=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mm_hidden_size", 123456789012345678901),
        ("mm_hidden_size", -1),
        ("mm_vision_select_feature", "block_99999999999"),
        ("vocab_size", 2**40),
        ("hidden_size", 2**40),
        ("intermediate_size", -4),
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 10**9),
        ("max_position_embeddings", -1),
        ("rms_norm_eps", -1),
        ("rope_theta", 0),
    ],
)
def test_a_number_out_of_range_is_named_before_anything_is_built(tmp_path: Path, field: str, value: object) -> None:
    fields = json.loads((OFFICIAL / "vhs-tiny-96" / "config.json").read_text())
    assert PublishedConfig.model_validate(fields).to_dict() == fields
    (tmp_path / "config.json").write_text(json.dumps(fields | {field: value}))
    with pytest.raises(CheckpointError, match=rf"config\.json: {field} = "):
        read_config(tmp_path / "config.json", PublishedConfig)
