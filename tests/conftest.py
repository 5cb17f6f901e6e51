"""Setup shared by all tests: no network, the repository's root, and fixtures recorded elsewhere."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch._dynamo.testing import CompileCounter

    from tests.support.tiny_run import TinyRun


# Read by the hub's client when it is imported, so before any test module imports a model library.
os.environ["HF_HUB_OFFLINE"] = "1"
# Processes that share the cores take one thread each; the commands that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def parity() -> Path:
    """Results recorded from the reference implementations, kept beside the repository."""
    folder = REPOSITORY.parent / "shared" / "parity"
    if not folder.is_dir():
        pytest.skip("the recorded reference results (../shared/parity) are not here")
    return folder


@pytest.fixture(scope="session")
def geneval_data() -> Path:
    """GenEval's 553 prompts with metadata and its 80 class names, kept beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data" / "geneval"
    if not folder.is_dir():
        pytest.skip("GenEval's prompts (../shared/data/geneval) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained SANA-Sprint of 4 blocks, as the miniature's are built."""
    from tests.support.tiny import save_tiny_generator

    return save_tiny_generator(tmp_path_factory.mktemp("tiny") / "generator", seed=0)


@pytest.fixture(scope="session")
def tiny_verifier(tiny_generator: Path) -> Path:
    """A folder with an untrained verifier that reads `tiny_generator` after 2 of its 4 blocks."""
    from tests.support.tiny import save_tiny_verifier

    return save_tiny_verifier(tiny_generator.parent / "verifier", tiny_generator, num_prefix_blocks=2)


@pytest.fixture(scope="session")
def tiny_run(tiny_generator: Path, tmp_path_factory: pytest.TempPathFactory) -> "TinyRun":
    """A folder with all that a training run needs: see `TinyRun`."""
    from tests.support.tiny_run import new_tiny_run

    return new_tiny_run(tmp_path_factory.mktemp("training"), tiny_generator)


@pytest.fixture(scope="session")
def trained_verifier(tiny_run: "TinyRun") -> Path:
    """A verifier's folder, trained for ten steps without a stop."""
    return tiny_run.verify(tiny_run.folder / "verified")


@pytest.fixture(scope="session")
def aligned(tiny_run: "TinyRun") -> Path:
    """An aligned connector's folder, trained for ten steps without a stop."""
    return tiny_run.align(tiny_run.folder / "aligned")


@pytest.fixture
def compile_counter(monkeypatch: pytest.MonkeyPatch) -> "Iterator[CompileCounter]":
    """torch.compile without its code generation, which takes a minute; counts what it would generate code for."""
    import torch
    from torch._dynamo.testing import CompileCounter

    from forejudge.compiling import compiler_problem

    torch.compiler.reset()
    compiler_problem.cache_clear()
    counter = CompileCounter()
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=counter))
    yield counter
    torch.compiler.reset()
