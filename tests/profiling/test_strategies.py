"""Search strategies: they generate the same candidates, and cost the FLOPs that they state."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import SamplingParams
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.profiling.figures import CLIP, DECODE, ENCODE, PREFIX, PREVIEW, SUFFIX, scoring_stage
from forejudge.profiling.measure import count_flops
from forejudge.profiling.models import ProfiledModels
from forejudge.profiling.roofline import StageRun, total_flops
from forejudge.profiling.sizes import new_verifier
from forejudge.profiling.strategies import DecodeAll, Forejudge, Official, SearchStrategy
from forejudge.session import PromptSession
from tests.support.doubles import CPU, FakeClock
from tests.support.published_costs import TERA, published_costs
from tests.support.tiny_sizes import TINY, tiny_models

_OF_NOISE = {"randn_latents", "randn_step"}  # in the record: where noise comes from is this package's own


def counted(generator: Any, language_model: nn.Module) -> Counter[str]:
    """Counts the calls of every part from now on, under the names of the record."""
    calls = Counter[str]()
    parts: dict[str, Any] = {
        "text_encoder": generator.pipeline.text_encoder,
        "transformer": generator.transformer.patch_embed,
        "verifier": language_model,
        "vae_decode": generator.autoencoder.decoder,
        **{f"block_{number:02}": block for number, block in enumerate(generator.transformer.transformer_blocks)},
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *given, name=name: calls.update([name]))
    return calls


def test_official_calls_what_the_release_calls(parity: Path) -> None:
    recorded = json.loads((parity / "expected_e2e.json").read_text())
    spelling = f"{parity / 'sana-sprint-tiny'},use_resolution_binning=false"
    generator = load_generator(spelling, CPU, torch.float32)
    assert isinstance(generator, SanaSprint)
    verifier = new_verifier(TINY.verifier, "hidden:8", generator)
    calls = counted(generator, verifier.model.language_model)
    for prompt in recorded["prompts"]:
        models = ProfiledModels(generator, {"hidden": verifier}, prompt, SamplingParams(height=256, width=256))
        Official(models, "hidden", max_batch_size=3).run(tuple(recorded["sample_seeds"]))
    expected = {name: count for name, count in recorded["runs"]["fp32"]["calls"].items() if name not in _OF_NOISE}
    assert calls == expected


def test_every_candidate_is_encoded_and_the_winner_generated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    calls = counted(models.generator, models.verifiers["hidden"].model.language_model)
    Official(models, "hidden", max_batch_size=3).run((1, 2, 3))
    again, scored = {"text_encoder": 4, "transformer": 4, "block_00": 4}, {"verifier": 3}
    assert calls == again | scored | {"block_01": 1, "block_02": 1, "vae_decode": 1}


def test_a_candidate_is_scored_by_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """-P(no) unless yes is the answer, then P(yes); both as the verifier itself has them."""
    models = tiny_models(monkeypatch, "hidden")
    official, verifier = Official(models, "hidden", max_batch_size=1), models.verifiers["hidden"]
    candidates = models.generator.advance(models.generator.start(models.conditioning, (1,)), verifier.reads)
    (verdict,) = verifier.score(models.prompt, candidates)
    assert verdict.p_no is not None
    assert official.scoring((1,))() == [pytest.approx(-verdict.p_no, rel=1e-5)]
    make_yes_the_answer(models)
    (verdict,) = verifier.score(models.prompt, candidates)
    assert verdict.p_yes is not None
    assert official.scoring((1,))() == [pytest.approx(verdict.p_yes, rel=1e-5)]


@torch.no_grad()
def make_yes_the_answer(models: ProfiledModels) -> None:
    """By an output layer that knows no other word."""
    verifier = models.verifiers["hidden"]
    weight_VD = verifier.model.language_model.lm_head.weight
    states_ND: list[torch.Tensor] = []
    hook = verifier.model.language_model.lm_head.register_forward_pre_hook(
        lambda module, given: states_ND.append(given[0][0])
    )
    Official(models, "hidden", max_batch_size=1).scoring((1,))()
    hook.remove()
    weight_VD[verifier.answer_token_ids[0]] = states_ND[0][0]


def test_the_first_of_equals_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    assert Official(models, "hidden", max_batch_size=1).run((2, 2, 2)).winner == 0


def test_a_verifier_that_does_not_answer_in_words_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    verifier = models.verifiers["hidden"]
    verifier.config = verifier.config.model_copy(update={"has_head": True})
    with pytest.raises(InvalidRequest, match=r"answers by a head, not by a token: leave out --strategy official"):
        Official(models, "hidden", max_batch_size=1)


SEEDS = (3, 1, 4)
STRATEGIES: list[tuple[type[SearchStrategy], str]] = [
    (Official, "hidden"),
    (Official, "clip"),
    (Official, "latent"),
    (DecodeAll, "clip"),
    (Forejudge, "hidden"),
    (Forejudge, "latent"),
    (Forejudge, "preview"),
]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ProfiledModels:
    """Tiny ones."""
    return tiny_models(monkeypatch)


@pytest.mark.parametrize(("strategy_class", "kind"), STRATEGIES)
def test_each_strategy_finishes_the_winner(
    models: ProfiledModels, strategy_class: type[SearchStrategy], kind: str
) -> None:
    strategy = strategy_class(models, kind, max_batch_size=2)
    picked = strategy.run(SEEDS)
    alone = strategy.run((SEEDS[picked.winner],))
    assert picked.image.size == (64, 64)
    assert np.abs(pixels(picked.image) - pixels(alone.image)).max() <= 1, "rounding may differ with the batch"


@pytest.mark.slow
def test_memory_is_counted_on_what_is_not_compiled(models: ProfiledModels, compile_counter: CompileCounter) -> None:
    compiled = models.compiled()
    fast = Forejudge(compiled, "hidden", max_batch_size=1)
    assert (fast.models, fast.eager.models) == (compiled, models)
    assert (fast.verifier, fast.eager.verifier) == (compiled.verifiers["hidden"], models.verifiers["hidden"])
    assert Official(compiled, "hidden", max_batch_size=1).models == models, "the release compiles nothing"


def test_all_generate_the_same_image_from_a_seed(models: ProfiledModels) -> None:
    images = [
        pixels(strategy_class(models, kind, max_batch_size=1).run((5,)).image) for strategy_class, kind in STRATEGIES
    ]
    for image in images[1:]:
        assert np.array_equal(image, images[0])
    assert not np.array_equal(pixels(Forejudge(models, "hidden", max_batch_size=1).run((6,)).image), images[0])


@pytest.mark.parametrize(("strategy_class", "kind"), STRATEGIES)
def test_a_run_costs_the_flops_it_states(
    models: ProfiledModels, strategy_class: type[SearchStrategy], kind: str
) -> None:
    strategy = strategy_class(models, kind, max_batch_size=2)
    assert count_flops(lambda: strategy.run(SEEDS)) == pytest.approx(strategy.flops(len(SEEDS)), rel=0.002)


def test_the_batch_size_is_that_of_the_least_time_a_candidate(
    models: ProfiledModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = FakeClock()
    monkeypatch.setattr("forejudge.profiling.measure.perf_counter", time)
    score = PromptSession.score
    took = {1: 10.0, 2: 14.0, 4: 32.0}  # 10, 7 and 8 for each

    def timed_score(session: PromptSession, seeds: tuple[int, ...]) -> object:
        time.advance(took[len(seeds)])
        return score(session, seeds)

    monkeypatch.setattr(PromptSession, "score", timed_score)
    assert DecodeAll(models, "clip", max_batch_size=4).batch_size == 2


def test_a_last_batch_may_be_smaller_and_only_the_winner_is_finished(models: ProfiledModels) -> None:
    strategy = Forejudge(models, "hidden", max_batch_size=1)
    strategy.batch_size = 4
    scoring = scoring_stage("hidden")
    assert strategy.stage_runs(10) == [
        StageRun(ENCODE, 1),
        StageRun(PREFIX, 4, 2),
        StageRun(PREFIX, 2, 1),
        StageRun(scoring, 4, 2),
        StageRun(scoring, 2, 1),
        StageRun(SUFFIX, 1),
        StageRun(DECODE, 1),
    ]
    everything = {
        run.stage for run in DecodeAll(models, "clip", max_batch_size=1).stage_runs(3) if run.repeats * run.batch == 3
    }
    assert everything == {PREFIX, SUFFIX, DECODE, CLIP, scoring_stage("clip")}


def test_of_previews_only_the_winner_is_decoded_in_full(models: ProfiledModels) -> None:
    strategy = Forejudge(models, "preview", max_batch_size=1)
    everything = [run.stage for run in strategy.stage_runs(3) if run.repeats * run.batch == 3]
    assert everything == [PREFIX, SUFFIX, PREVIEW, scoring_stage("preview")]
    assert [run.stage for run in strategy.stage_runs(3) if run.repeats * run.batch == 1] == [ENCODE, DECODE]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy_class", "kind", "marginal_cost", "fixed"),
    [
        (Official, "hidden", 6.1, 13.5),
        (Official, "clip", 15.4, 13.5),
        (Official, "latent", 7.9, 13.5),
        (Forejudge, "hidden", 2.10, 12.3),
        (DecodeAll, "clip", 12.2, 2.16),
        (Forejudge, "preview", 4.4, 10.5),
    ],
)
def test_teraflop_at_the_published_sizes(
    models: ProfiledModels, strategy_class: type[SearchStrategy], kind: str, marginal_cost: float, fixed: float
) -> None:
    strategy = strategy_class(models, kind, max_batch_size=1)
    first, second = (total_flops(strategy.stage_runs(n), published_costs()) / TERA for n in (1, 2))
    assert second - first == pytest.approx(marginal_cost, rel=0.03)
    assert 2 * first - second == pytest.approx(fixed, rel=0.03)


def pixels(image: object) -> np.ndarray:
    return np.asarray(image).astype(int)
