"""Compiled blocks: the same candidates, from copies, and a plain way where nothing can be compiled."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.doubles import CPU, PROMPT, ScriptedGenerator, ScriptedVerifier
from torch._dynamo.testing import CompileCounter

from forejudge import BestOfN
from forejudge.compiling import compiler_problem
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.types import latent_stage, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier

ROUNDING = 1e-4


@pytest.fixture
def generator(tiny_generator: Path) -> SanaSprint:
    found = load_generator(str(tiny_generator), CPU, torch.float32)
    assert isinstance(found, SanaSprint)
    return found


@pytest.fixture
def verifier(tiny_verifier: Path) -> Verifier:
    return load_verifier(str(tiny_verifier), CPU, torch.float32)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """torch.compile without its code generation, which takes a minute; counts what it would generate code for."""
    torch.compiler.reset()
    counter = CompileCounter()
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=counter))
    yield counter
    torch.compiler.reset()


def check_alike(plain: Generator, compiled: Generator) -> None:
    """At several batch sizes and lengths of prompts, cut in the middle and run to the end."""
    for prompt, count in ((PROMPT, 3), ("a star", 1), (PROMPT, 2), ("a star", 3)):
        found, expected = (
            each.advance(
                each.start(each.encode_without_padding(prompt, each.defaults), tuple(range(count))),
                [prefix_stage(2), latent_stage()],
            )
            for each in (compiled, plain)
        )
        for stage in (prefix_stage(2), latent_stage()):
            torch.testing.assert_close(found.tensor(stage), expected.tensor(stage), rtol=0, atol=ROUNDING)


def test_candidates_are_alike_and_the_models_stay_as_they_are(generator: SanaSprint, traced: CompileCounter) -> None:
    blocks = list(generator.transformer.transformer_blocks)
    compiled = generator.compiled()
    check_alike(generator, compiled)
    assert list(generator.transformer.transformer_blocks) == blocks
    assert generator.pipeline.transformer is generator.transformer
    assert type(compiled.transformer.transformer_blocks[0]) is not type(blocks[0])
    weights = {weight.data_ptr() for weight in compiled.transformer.parameters()}
    assert weights == {weight.data_ptr() for weight in generator.transformer.parameters()}


def test_other_prompts_and_batches_are_not_compiled_for(generator: SanaSprint, traced: CompileCounter) -> None:
    """Else a time budget would be spent on compiling."""
    compiled = generator.compiled()

    def draw(prompt: str, count: int) -> None:
        conditioning = compiled.encode_without_padding(prompt, compiled.defaults)
        compiled.advance(compiled.start(conditioning, tuple(range(count))), [latent_stage()])

    for count in (1, 2):
        draw(PROMPT, count)
    warm = traced.frame_count
    assert warm
    for prompt, count in (("a star", 1), ("a star", 2), ("two red stars", 8), (PROMPT, 5)):
        draw(prompt, count)
    assert traced.frame_count == warm


def test_a_search_says_that_it_was_compiled(generator: SanaSprint, verifier: Verifier, traced: CompileCounter) -> None:
    compiler_problem.cache_clear()
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
    compiler_problem.cache_clear()
    best_of_n = BestOfN(ScriptedGenerator(), ScriptedVerifier({}), compiled=True)
    assert not best_of_n.compiled
    assert best_of_n.warnings == ("nothing is compiled, for scripted has nothing that can be",)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_generated_code_draws_alike(generator: Generator) -> None:
    torch.compiler.reset()
    check_alike(generator, generator.compiled())
