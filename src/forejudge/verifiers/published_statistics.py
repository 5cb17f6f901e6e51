"""Mean and variance beside a published verifier: pickled tensors, of which the shape says what they are of."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forejudge.checkpoint import read_pickle
from forejudge.device import dtype_name
from forejudge.errors import CheckpointError
from forejudge.hub import MODEL_FILES
from forejudge.verifiers.connector import StatisticsKind

PUBLISHED_FILES = (*MODEL_FILES, "*block_*_mean*.pt", "*block_*_variance*.pt")
"""What is fetched of a verifier's repository, statistics too; these files alone are pickled."""
_KIND_IN_NAME = {"channel": "", "token": "_token", "global": "_global"}
_DTYPE_IN_NAME = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Statistics:
    """Of each channel (D,), of each token (T, 1) or of all values (1,), as `Connector` holds them."""

    kind: StatisticsKind
    mean_D: Tensor
    variance_D: Tensor

    @property
    def tokens(self) -> int | None:
        """How many tokens have statistics each."""
        return len(self.mean_D) if self.kind == "token" else None

    def __str__(self) -> str:
        of = {"channel": "each channel", "token": f"each of {self.tokens} tokens"}.get(self.kind, "all values")
        return f"statistics of {of} in {dtype_name(self.mean_D.dtype)}"


def find_statistics(folder: Path, block: int) -> tuple[Path, Path]:
    """The files of mean and variance of a block that lie in a folder. Raises CheckpointError for none or several."""
    means, variances = (sorted(folder.rglob(f"block_{block}_{name}*.pt")) for name in ("mean", "variance"))
    if len(means) != 1 or len(variances) != 1:
        found = ", ".join(str(path.relative_to(folder)) for path in [*means, *variances])
        raise CheckpointError(
            f"{folder} holds {found or 'no statistics'}, expected one block_{block}_mean*.pt and one "
            f"block_{block}_variance*.pt"
        )
    return means[0], variances[0]


def read_statistics(paths: tuple[Path, Path], width: int, tokens: int | None = None) -> Statistics:
    """From files of shape (1, width), (tokens,) or (1,), in their own dtype; `tokens` None stands for any number.

    Raises CheckpointError for another shape, for one that may be either, and for values that are no statistics.
    """
    mean, variance = (_tensor(path) for path in paths)
    kind = _kind(paths[0], tuple(mean.shape), width, tokens)
    if variance.shape != mean.shape:
        raise CheckpointError(
            f"{paths[1]} has shape {tuple(variance.shape)}, {paths[0]} has {tuple(mean.shape)}: expected the same"
        )
    if (variance < 0).any():
        raise CheckpointError(f"{paths[1]} holds values below 0: expected variances")
    shape = {"channel": (width,), "token": (-1, 1), "global": (1,)}[kind]
    return Statistics(kind, mean.reshape(shape), variance.reshape(shape))


def write_statistics(statistics: Statistics, folder: Path, block: int) -> None:
    """The files that `read_statistics` reads, under their usual names."""
    shape = {"channel": (1, -1), "token": (-1,), "global": (1,)}[statistics.kind]
    ending = _KIND_IN_NAME[statistics.kind] + "_" + _DTYPE_IN_NAME[statistics.mean_D.dtype]
    for name, tensor in (("mean", statistics.mean_D), ("variance", statistics.variance_D)):
        torch.save(tensor.reshape(shape).clone(), folder / f"block_{block}_{name}{ending}.pt")


def _tensor(path: Path) -> Tensor:
    found = read_pickle(path)
    if not isinstance(found, Tensor) or found.dtype not in _DTYPE_IN_NAME or not found.isfinite().all():
        raise CheckpointError(f"{path} is no statistic: expected a tensor of finite floating-point numbers")
    return found


def _kind(path: Path, shape: tuple[int, ...], width: int, tokens: int | None) -> StatisticsKind:
    if shape == (1,):
        return "global"
    if shape == (1, width):
        return "channel"
    if shape == (width,) and tokens in (None, width):
        raise CheckpointError(
            f"{path} has shape ({width},), which may be of channels or tokens: save it as (1, {width})"
        )
    if len(shape) == 1 and tokens in (None, *shape):
        return "token"
    raise CheckpointError(
        f"{path} has shape {shape}, expected (1, {width}) for each channel, ({tokens or 'T'},) for each token or (1,) "
        "for all values"
    )
