"""Compiled models: the same candidates and verdicts, from copies, and a plain way where nothing can be compiled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounter

from forejudge import BestOfN
from forejudge.compiling import compiler_problem
from forejudge.generators.base import Generator
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.types import IMAGE, Candidates, latent_stage, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.doubles import PROMPT, ScriptedGenerator, ScriptedVerifier, load_as
from tests.support.tiny_sizes import tiny_models

ROUNDING = 1e-4


@pytest.fixture
def generator(tiny_generator: Path) -> SanaSprint:
    return load_as(SanaSprint, tiny_generator)


@pytest.fixture
def verifier(tiny_verifier: Path) -> LanguageModelVerifier:
    return LanguageModelVerifier.from_pretrained(tiny_verifier)


def drawn(generator: Generator, prompt: str, count: int) -> Candidates:
    """Cut in the middle, run to the end, and decoded."""
    candidates = generator.start(generator.encode_without_padding(prompt, generator.defaults), tuple(range(count)))
    return generator.advance(candidates, [prefix_stage(2), latent_stage(), IMAGE])


def compiled_parts(generator: SanaSprint, verifier: LanguageModelVerifier) -> list[nn.Module]:
    """List what compiling replaces, one module of each kind."""
    layers = verifier.model.language_model.get_decoder().layers
    blocks, decoder = generator.transformer.transformer_blocks, generator.autoencoder.decoder
    return [blocks[0], decoder, layers[0]]


TWO_SHAPES = ((PROMPT, 3), ("a star", 1))


def check_alike(generator: Generator, verifier: Verifier, cases: Sequence[tuple[str, int]]) -> None:
    """Compiled and plain, for prompts of other lengths and batches of other sizes."""
    fast_generator, fast_verifier = generator.compiled(), verifier.compiled()
    for prompt, count in cases:
        found, expected = drawn(fast_generator, prompt, count), drawn(generator, prompt, count)
        for stage in (prefix_stage(2), latent_stage()):
            torch.testing.assert_close(found.tensor(stage), expected.tensor(stage), rtol=0, atol=ROUNDING)
        pixels = [np.stack([np.asarray(image, int) for image in each.images]) for each in (found, expected)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1
        scores = [verdict.score for verdict in fast_verifier.score(prompt, expected)]
        assert scores == pytest.approx([verdict.score for verdict in verifier.score(prompt, expected)], abs=ROUNDING)


@pytest.mark.slow
def test_all_is_alike_and_the_models_stay_as_they_are(
    generator: SanaSprint, verifier: LanguageModelVerifier, compile_counter: CompileCounter
) -> None:
    before = compiled_parts(generator, verifier)
    check_alike(generator, verifier, TWO_SHAPES)
    assert compiled_parts(generator, verifier) == before
    assert generator.pipeline.transformer is generator.transformer


def test_what_is_compiled_is_told_apart_and_saved_as_before(
    generator: SanaSprint, verifier: LanguageModelVerifier, compile_counter: CompileCounter, tmp_path: Path
) -> None:
    fast_generator, fast_verifier = generator.compiled(), verifier.compiled()
    fast_parts = compiled_parts(fast_generator, fast_verifier)
    for plain, fast in zip(compiled_parts(generator, verifier), fast_parts, strict=True):
        assert ("forward" in vars(plain), "forward" in vars(fast)) == (False, True)
        for name, weight in plain.state_dict().items():
            assert fast.state_dict()[name].data_ptr() == weight.data_ptr(), "they share all weights"
    assert (fast_generator.fingerprint, fast_verifier.digest) == (generator.fingerprint, verifier.digest)
    fast_verifier.save_pretrained(tmp_path / "saved")
    assert LanguageModelVerifier.from_pretrained(tmp_path / "saved").digest == verifier.digest


@pytest.mark.slow
def test_hooks_that_one_gets_later_do_not_reach_the_other(
    generator: SanaSprint, compile_counter: CompileCounter
) -> None:
    """Transformers notes on a model that its layers have hooks, and would hang them up twice."""
    calls: list[int] = []
    fast = generator.compiled()
    generator.transformer.transformer_blocks[0].register_forward_hook(lambda *given: calls.append(1))
    drawn(fast, PROMPT, 1)
    assert not calls
    drawn(generator, PROMPT, 1)
    assert calls == [1]


@pytest.mark.slow
def test_an_image_is_read_alike_whichever_model_runs_first(
    monkeypatch: pytest.MonkeyPatch, compile_counter: CompileCounter
) -> None:
    """transformers hooks a tower's layers to record their output, and must not hook them twice."""
    models = tiny_models(monkeypatch, "clip")
    plain = models.verifiers["clip"].verifier_input
    candidates = models.generator.advance(models.generator.start(models.conditioning, (0, 1)), [IMAGE])
    fast = plain.compiled()
    seen = [verifier_input.tokens(candidates) for verifier_input in (fast, plain, fast)]
    assert compile_counter.frame_count
    for tokens_NTD in seen[1:]:
        torch.testing.assert_close(tokens_NTD, seen[0], rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_other_prompts_and_batches_are_not_compiled_for(
    generator: SanaSprint, verifier: Verifier, compile_counter: CompileCounter
) -> None:
    """Else a time budget would be spent on compiling."""
    best_of_n = BestOfN(generator, verifier, compiled=True)
    for count in (1, 2):
        best_of_n(PROMPT, count)
    warm = compile_counter.frame_count
    assert warm
    for prompt, count in (("a star", 1), ("a star", 2), ("two red stars", 8), (PROMPT, 5)):
        best_of_n(prompt, count)
    assert compile_counter.frame_count == warm


@pytest.mark.slow
def test_a_search_says_that_it_was_compiled(
    generator: SanaSprint, verifier: Verifier, compile_counter: CompileCounter
) -> None:
    plain, compiled = (BestOfN(generator, verifier, compiled=wanted)(PROMPT, 4).record for wanted in (False, True))
    assert (plain.settings.compiled, compiled.settings.compiled) == (False, True)
    assert compiled.winner == plain.winner
    assert compiled.settings.warnings == ()


def test_where_nothing_can_be_compiled_the_search_warns_and_runs_eagerly(
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
    assert settings.warnings == ("torch.compile does not work here (no C++ compiler); continuing without compilation",)


def test_a_generator_that_has_nothing_to_compile_says_so(compile_counter: CompileCounter) -> None:
    best_of_n = BestOfN(ScriptedGenerator(), ScriptedVerifier({}), compiled=True)
    assert not best_of_n.compiled
    assert best_of_n.warnings == tuple(
        f"{model} scripted is not compiled: it has no part that can be" for model in ("generator", "verifier")
    )


def test_a_model_that_cannot_be_compiled_runs_eagerly_with_a_warning(
    generator: SanaSprint, verifier: LanguageModelVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is found out only when the first candidates are drawn."""

    def failing(*given: object) -> object:
        raise Unsupported("a call of C++\nand a long report", "C++")

    expected = BestOfN(generator, verifier)(PROMPT, 3)
    compiler_problem.cache_clear()
    monkeypatch.setattr("forejudge.best_of_n.compiler_problem", lambda device: None)
    monkeypatch.setattr("torch.compile", lambda function, **options: failing)
    best_of_n = BestOfN(generator, verifier, compiled=True)
    for _ in range(2):
        found = best_of_n(PROMPT, 3)
        assert found.record.candidates == expected.record.candidates
        assert not found.record.settings.compiled
        assert found.record.settings.warnings == (
            "torch.compile failed (a call of C++); continuing without compilation",
        )


def test_other_errors_stay_what_they_are(
    generator: SanaSprint, verifier: Verifier, compile_counter: CompileCounter
) -> None:
    def failing(*given: object, **options: object) -> object:
        raise RuntimeError("out of luck")

    best_of_n = BestOfN(generator, verifier, compiled=True)
    best_of_n.generator.start = failing  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="out of luck"):
        best_of_n(PROMPT, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_generated_code_does_alike(generator: Generator, verifier: Verifier) -> None:
    torch.compiler.reset()
    check_alike(generator, verifier, (*TWO_SHAPES, (PROMPT, 2), ("a star", 3)))
