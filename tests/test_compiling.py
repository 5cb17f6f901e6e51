"""Compiled models: the same candidates and verdicts, from copies, and a plain way where nothing can be compiled."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.doubles import CPU, PROMPT, ScriptedGenerator, ScriptedVerifier
from torch import nn
from torch._dynamo.testing import CompileCounter

from forejudge import BestOfN
from forejudge.compiling import compiler_problem
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.types import IMAGE, Candidates, latent_stage, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

ROUNDING = 1e-4


@pytest.fixture
def generator(tiny_generator: Path) -> SanaSprint:
    found = load_generator(str(tiny_generator), CPU, torch.float32)
    assert isinstance(found, SanaSprint)
    return found


@pytest.fixture
def verifier(tiny_verifier: Path) -> LanguageModelVerifier:
    return LanguageModelVerifier.from_pretrained(tiny_verifier)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CompileCounter]:
    """torch.compile without its code generation, which takes a minute; counts what it would generate code for."""
    torch.compiler.reset()
    compiler_problem.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    counter = CompileCounter()
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=counter))
    yield counter
    torch.compiler.reset()


def drawn(generator: Generator, prompt: str, count: int) -> Candidates:
    """Cut in the middle, run to the end, and decoded."""
    candidates = generator.start(generator.encode_without_padding(prompt, generator.defaults), tuple(range(count)))
    return generator.advance(candidates, [prefix_stage(2), latent_stage(), IMAGE])


def compiled_parts(generator: SanaSprint, verifier: LanguageModelVerifier) -> list[nn.Module]:
    """What compiling replaces, one of each kind."""
    layers = verifier.model.language_model.get_decoder().layers
    blocks, decoder = generator.transformer.transformer_blocks, generator.autoencoder.decoder
    return [blocks[0], decoder, verifier.model.connector, layers[0]]


def check_alike(generator: Generator, verifier: Verifier) -> None:
    """Compiled and plain, at several batch sizes and lengths of prompts."""
    fast_generator, fast_verifier = generator.compiled(), verifier.compiled()
    for prompt, count in ((PROMPT, 3), ("a star", 1), (PROMPT, 2), ("a star", 3)):
        found, expected = drawn(fast_generator, prompt, count), drawn(generator, prompt, count)
        for stage in (prefix_stage(2), latent_stage()):
            torch.testing.assert_close(found.tensor(stage), expected.tensor(stage), rtol=0, atol=ROUNDING)
        pixels = [np.stack([np.asarray(picture, int) for picture in each.pictures]) for each in (found, expected)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1
        scores = [verdict.score for verdict in fast_verifier.judge(prompt, expected)]
        assert scores == pytest.approx([verdict.score for verdict in verifier.judge(prompt, expected)], abs=ROUNDING)


def test_all_is_alike_and_the_models_stay_as_they_are(
    generator: SanaSprint, verifier: LanguageModelVerifier, traced: CompileCounter
) -> None:
    before = compiled_parts(generator, verifier)
    check_alike(generator, verifier)
    assert compiled_parts(generator, verifier) == before
    assert generator.pipeline.transformer is generator.transformer


def test_what_is_compiled_shares_all_weights(
    generator: SanaSprint, verifier: LanguageModelVerifier, traced: CompileCounter
) -> None:
    fast_parts = compiled_parts(generator.compiled(), verifier.compiled())
    for plain, fast in zip(compiled_parts(generator, verifier), fast_parts, strict=True):
        assert type(fast) is not type(plain)
        assert [weight.data_ptr() for weight in fast.parameters()] == [
            weight.data_ptr() for weight in plain.parameters()
        ]


def test_other_prompts_and_batches_are_not_compiled_for(
    generator: SanaSprint, verifier: Verifier, traced: CompileCounter
) -> None:
    """Else a time budget would be spent on compiling."""
    best_of_n = BestOfN(generator, verifier, compiled=True)
    for count in (1, 2):
        best_of_n(PROMPT, count)
    warm = traced.frame_count
    assert warm
    for prompt, count in (("a star", 1), ("a star", 2), ("two red stars", 8), (PROMPT, 5)):
        best_of_n(prompt, count)
    assert traced.frame_count == warm


def test_a_search_says_that_it_was_compiled(generator: SanaSprint, verifier: Verifier, traced: CompileCounter) -> None:
    plain, compiled = (BestOfN(generator, verifier, compiled=wanted)(PROMPT, 4).record for wanted in (False, True))
    assert (plain.settings.compiled, compiled.settings.compiled) == (False, True)
    assert compiled.winner == plain.winner
    assert compiled.settings.warnings == ()


def test_where_nothing_can_be_compiled_the_search_says_so_and_runs_plainly(
    generator: Generator, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_compiler(function: object) -> object:
        raise RuntimeError("no C++ compiler\nand a long report")

    compiler_problem.cache_clear()
    monkeypatch.setattr("torch.compile", without_compiler)
    best_of_n = BestOfN(generator, verifier, compiled=True)
    compiler_problem.cache_clear()
    assert best_of_n.generator is generator
    settings = best_of_n(PROMPT, 2).record.settings
    assert not settings.compiled
    assert settings.warnings == ("nothing is compiled, for torch.compile does not work here: no C++ compiler",)


def test_a_generator_that_has_nothing_to_compile_says_so(traced: CompileCounter) -> None:
    best_of_n = BestOfN(ScriptedGenerator(), ScriptedVerifier({}), compiled=True)
    assert not best_of_n.compiled
    assert best_of_n.warnings == tuple(
        f"{model} scripted is not compiled, for it has nothing that can be" for model in ("generator", "verifier")
    )


def test_what_is_compiled_is_kept_for_the_next_start(traced: CompileCounter, tmp_path: Path) -> None:
    assert compiler_problem(CPU) is None
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(tmp_path)


def test_what_is_compiled_goes_where_the_user_says(
    traced: CompileCounter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert compiler_problem(CPU) is None
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "elsewhere")


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(
    traced: CompileCounter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiler_problem(CPU) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_generated_code_does_alike(generator: Generator, verifier: Verifier) -> None:
    torch.compiler.reset()
    check_alike(generator, verifier)
