"""Best-of-N on the miniature's classes: images, seeds, budgets and records."""

import gc
import itertools
import json
import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from threading import get_ident
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL.Image import Image
from torch._subclasses.fake_tensor import FakeTensor

from forejudge import BestOfN, Result, SamplingParams
from forejudge.diversity import cosine_distances
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.noise import candidate_seed
from forejudge.options import SearchOptions
from forejudge.policies import AllPolicies, LatencyEstimate, SearchState
from forejudge.result import SearchRecord
from forejudge.session import PromptSession
from forejudge.types import BROKEN, IMAGE, Candidates, Stage, Verdict, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.doubles import (
    CPU,
    PROMPT,
    FakeClock,
    ScriptedGenerator,
    ScriptedVerifier,
    call_reference_pipeline,
    load_pipeline,
    probabilities,
)
from tests.support.hub_cache import COMMIT, add_to_cache
from tests.support.tiny import save_tiny_verifier

CUT, BLOCKS = 2, 4
TOLERANCE = 1e-5  # of a score, between batches of other sizes
SURE_AT_4 = probabilities(0.2, 0.6, 0.1, 0.7, 0.95, 0.3, 0.8, 0.96, 0.4)


@pytest.fixture(scope="module")
def load(tiny_generator: Path, tiny_verifier: Path) -> Callable[..., BestOfN]:
    """Load the untrained miniature; options are those of `from_pretrained`."""
    return lambda **options: BestOfN.from_pretrained(str(tiny_generator), str(tiny_verifier), device="cpu", **options)


@pytest.fixture(scope="module")
def best_of_n(load: Callable[..., BestOfN]) -> BestOfN:
    return load(batch_size=4)


@pytest.fixture(scope="module")
def verifier(tiny_verifier: Path) -> LanguageModelVerifier:
    found = load_verifier(str(tiny_verifier), CPU, torch.float32)
    assert isinstance(found, LanguageModelVerifier)
    return found


@pytest.fixture(scope="module")
def result(best_of_n: BestOfN) -> Result:
    return best_of_n(PROMPT, n=6, seed=3, top_k=2, sampling=SamplingParams(steps=2))


def scripted(script: dict[int, float] = SURE_AT_4, **options: Any) -> BestOfN:
    return BestOfN(ScriptedGenerator(), ScriptedVerifier(script), **options)


def distance(one: Image, other: Image) -> int:
    """Return the largest difference of two images, in gray levels."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def seeds(result: Result) -> list[int]:
    return [candidate.seed for candidate in result.candidates]


def scores(result: Result) -> list[float]:
    return [candidate.score for candidate in result.candidates]


def untimed(record: SearchRecord) -> dict[str, Any]:
    """Return all of a record that must be the same when it is reproduced."""
    return record.model_dump(exclude={"timings"})


class TestImages:
    @pytest.mark.parametrize("batch_size", [1, 4])
    @pytest.mark.parametrize("steps", [1, 2, 4])
    def test_every_image_is_within_one_gray_level_of_the_reference_pipeline(
        self, load: Callable[..., BestOfN], tiny_generator: Path, steps: int, batch_size: int
    ) -> None:
        result = load(batch_size=batch_size)(PROMPT, n=8, top_k=8, sampling=SamplingParams(steps=steps))
        pipeline = load_pipeline(tiny_generator)
        assert len(result.images) == 8
        for index, image in result.images.items():
            assert distance(image, call_reference_pipeline(pipeline, [result.candidates[index].seed], steps)[0]) <= 1

    def test_a_pipeline_of_the_caller_works_too(
        self, best_of_n: BestOfN, verifier: LanguageModelVerifier, tiny_generator: Path
    ) -> None:
        pipeline = load_pipeline(tiny_generator)
        result = BestOfN(pipeline, verifier, batch_size=4)(PROMPT, n=8)
        assert result.record.candidates == best_of_n(PROMPT, n=8).record.candidates
        assert distance(result.image, best_of_n(PROMPT, n=8).image) == 0
        assert distance(result.image, call_reference_pipeline(pipeline, [result.winner.seed])[0]) <= 1

    @pytest.mark.parametrize("parts", [("transformer",), ("transformer", "vae", "text_encoder")])
    def test_parts_compiled_by_the_caller_change_nothing(
        self, best_of_n: BestOfN, verifier: LanguageModelVerifier, tiny_generator: Path, parts: tuple[str, ...]
    ) -> None:
        pipeline = load_pipeline(tiny_generator)
        for part in parts:
            setattr(pipeline, part, torch.compile(getattr(pipeline, part), backend="eager"))
        result = BestOfN(pipeline, verifier, batch_size=4)(PROMPT, n=4)
        assert result.candidates == best_of_n(PROMPT, n=4).candidates

    def test_the_best_come_first(self, best_of_n: BestOfN) -> None:
        result = best_of_n(PROMPT, n=6, top_k=3)
        by_score = sorted(result.candidates, key=lambda candidate: -candidate.score)
        assert list(result.images) == [candidate.index for candidate in by_score[:3]]
        assert result.winner == by_score[0]
        assert result.image is result.images[result.winner.index]


@contextmanager
def counted(generator: Any) -> Iterator[Counter[str]]:
    """Count the rows that go through each block, the text encoder and the decoder, and their calls."""
    rows: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
            first = args[0] if args else next(iter(kwargs.values()))
            rows[name] += len(first)
            rows[f"{name}, calls"] += 1

        return hook

    parts = {f"block {index}": block for index, block in enumerate(generator.transformer.transformer_blocks)}
    parts |= {"text encoder": generator.pipeline.text_encoder, "decoder": generator.autoencoder.decoder}
    hooks = [part.register_forward_hook(count(name), with_kwargs=True) for name, part in parts.items()]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


class TestNothingIsDoneTwice:
    def test_losers_run_the_first_blocks_and_nothing_else(self, best_of_n: BestOfN) -> None:
        with counted(best_of_n.generator) as rows:
            best_of_n("a red circle", n=10)
        assert rows["text encoder"] == rows["text encoder, calls"] == 1
        assert [rows[f"block {index}"] for index in range(BLOCKS)] == [10, 10, 1, 1]
        assert [rows[f"block {index}, calls"] for index in range(BLOCKS)] == [3, 3, 1, 1]
        assert rows["decoder"] == rows["decoder, calls"] == 1

    def test_only_the_winner_runs_further_steps(self, best_of_n: BestOfN) -> None:
        with counted(best_of_n.generator) as rows:
            best_of_n("a red square", n=10, sampling=SamplingParams(steps=3))
        assert [rows[f"block {index}"] for index in range(BLOCKS)] == [10 + 2, 10 + 2, 1 + 2, 1 + 2]
        assert (rows["text encoder"], rows["decoder"]) == (1, 1)

    def test_a_repeated_prompt_stays_encoded(self, load: Callable[..., BestOfN]) -> None:
        loaded = load()
        best_of_n = BestOfN(loaded.generator, loaded.verifier, prompt_cache_size=1)
        with counted(best_of_n.generator) as rows:
            first, again = best_of_n(PROMPT, n=2), best_of_n(PROMPT, n=2)
            assert rows["text encoder"] == 1
            best_of_n(PROMPT, n=2, sampling=SamplingParams(guidance_scale=2.0))
            assert rows["text encoder"] == 2, "another conditioning"
            best_of_n("a star", n=2)
            best_of_n(PROMPT, n=2)
            assert rows["text encoder"] == 4, "but the last one alone"
        assert untimed(first.record) == untimed(again.record)

    def test_each_of_several_winners_is_finished_once(self, best_of_n: BestOfN) -> None:
        with counted(best_of_n.generator) as rows:
            best_of_n(PROMPT, n=10, top_k=3)
        assert [rows[f"block {index}"] for index in range(BLOCKS)] == [10, 10, 3, 3]
        assert rows["decoder"] == 3


def bytes_held() -> int:
    """Return the bytes of all live tensors, except those that torch.compile traces with, which hold nothing."""
    torch.compiler.reset()
    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    storages = [found.untyped_storage() for found in tensors if not isinstance(found, FakeTensor)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def test_50_prompts_leave_no_more_memory_in_use_than_20(load: Callable[..., BestOfN]) -> None:
    best_of_n = load(batch_size=2)
    prompts = [f"a photo of a red circle {number:03}" for number in range(50)]  # of as many tokens each
    for prompt in prompts[:20]:
        best_of_n(prompt, n=2)
    before = bytes_held()
    for prompt in prompts[20:]:
        best_of_n(prompt, n=2)
    assert bytes_held() <= before, "tensors of other tests may go meanwhile"


class TestSeeds:
    def test_they_derive_from_run_prompt_image_and_candidate(self, best_of_n: BestOfN) -> None:
        result = best_of_n(PROMPT, n=3, seed=5, image_index=2)
        assert seeds(result) == [candidate_seed(5, PROMPT, 2, index) for index in range(3)]
        others = [best_of_n(PROMPT, n=3, seed=6), best_of_n(PROMPT, n=3, seed=5), best_of_n("a star", n=3, seed=5)]
        assert len({seed for run in (result, *others) for seed in seeds(run)}) == 12

    def test_the_same_call_gives_the_same_bits(self, best_of_n: BestOfN) -> None:
        first, second = best_of_n(PROMPT, n=8), best_of_n(PROMPT, n=8)
        assert untimed(first.record) == untimed(second.record)
        assert distance(first.image, second.image) == 0

    def test_earlier_searches_change_nothing(self, load: Callable[..., BestOfN], best_of_n: BestOfN) -> None:
        fresh = load(batch_size=4)(PROMPT, n=8)
        best_of_n("three blue squares", n=5, seed=9, sampling=SamplingParams(steps=2))
        torch.manual_seed(99)
        assert untimed(best_of_n(PROMPT, n=8).record) == untimed(fresh.record)

    def test_more_candidates_leave_the_first_ones_unchanged(self, best_of_n: BestOfN) -> None:
        """Bit for bit, since the batches are the same."""
        few, many = best_of_n(PROMPT, n=4), best_of_n(PROMPT, n=12, top_k=12)
        assert [candidate.score for candidate in many.candidates[:4]] == [
            candidate.score for candidate in few.candidates
        ]

    @pytest.mark.parametrize("batch_size", [1, 3, 8, None])
    def test_the_batch_size_changes_no_seed_and_no_winner(
        self, load: Callable[..., BestOfN], best_of_n: BestOfN, batch_size: int | None
    ) -> None:
        expected, found = best_of_n(PROMPT, n=8), load(batch_size=batch_size)(PROMPT, n=8)
        assert [candidate.seed for candidate in found.candidates] == [
            candidate.seed for candidate in expected.candidates
        ]
        for one, other in zip(found.candidates, expected.candidates, strict=True):
            assert one.score == pytest.approx(other.score, abs=TOLERANCE)
        assert found.winner.index == expected.winner.index
        assert distance(found.image, expected.image) <= 1

    @pytest.mark.parametrize(
        "given",
        [np.arange(3), torch.arange(3), range(3), iter([0, 1, 2]), [np.int64(0), torch.tensor(1), 2], (0, 1, 2)],
    )
    def test_integers_of_any_library_are_taken(self, given: Any) -> None:
        record = scripted()(PROMPT, seeds=given).record
        assert [candidate.seed for candidate in record.candidates] == [0, 1, 2]
        assert SearchRecord.model_validate_json(record.model_dump_json()) == record

    def test_numbers_of_numpy_and_torch_equal_pythons(self) -> None:
        numbers: dict[str, Any] = {
            "n": np.int64(3),
            "seed": torch.tensor(5),
            "top_k": np.uint8(2),
            "until": np.float32(0.5),
        }
        sampling = {"guidance_scale": np.float32(2.5), "lora_scale": torch.tensor(0.5)}
        record = scripted()(PROMPT, **numbers, sampling=sampling).record
        expected = scripted()(
            PROMPT, n=3, seed=5, top_k=2, until=0.5, sampling=SamplingParams(guidance_scale=2.5, lora_scale=0.5)
        ).record
        assert untimed(record) == untimed(expected)
        assert record.settings.model_dump_json() == expected.settings.model_dump_json()

    def test_none_leaves_the_default(self) -> None:
        record = scripted()(PROMPT, None, seed=None, top_k=None).record
        assert (record.settings.seed, record.n) == (0, 8)

    def test_seeds_are_derived_as_they_are_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        derived: list[int] = []

        def derive(run_seed: int, prompt: str, image_index: int, candidate_index: int) -> int:
            derived.append(candidate_index)
            return candidate_seed(run_seed, prompt, image_index, candidate_index)

        monkeypatch.setattr("forejudge.noise.candidate_seed", derive)
        result = scripted(batch_size=4)(PROMPT, n=10**6, until=0.9)
        assert (result.record.n, max(derived)) == (5, 7)

    def test_listed_seeds_are_taken_in_their_order(self, best_of_n: BestOfN) -> None:
        derived = best_of_n(PROMPT, n=4)
        reversed_ = best_of_n(PROMPT, seeds=seeds(derived)[::-1])
        assert reversed_.record.n == 4
        assert reversed_.record.settings.seed is None
        assert reversed_.winner.seed == derived.winner.seed
        assert seeds(reversed_) == seeds(derived)[::-1]
        assert scores(reversed_) == pytest.approx(scores(derived)[::-1], abs=TOLERANCE)
        assert distance(reversed_.image, derived.image) <= 1


class TestUntil:
    @pytest.mark.parametrize(("batch_size", "unused"), [(1, 0), (3, 1), (8, 3)])
    def test_it_ends_at_the_first_candidate_that_is_sure_enough(self, batch_size: int, unused: int) -> None:
        result = scripted(batch_size=batch_size)(PROMPT, until=0.9, max_n=9)
        assert (result.record.n, result.record.stopped_by, result.winner.index) == (5, "until", 4)
        assert result.record.unused == unused
        again = scripted(batch_size=batch_size)(PROMPT, n=5)
        assert again.candidates == result.candidates
        assert again.image.tobytes() == result.image.tobytes()

    def test_on_the_real_classes_too(self, load: Callable[..., BestOfN], best_of_n: BestOfN) -> None:
        """The probability lies halfway between that of a candidate behind the third and the best before it."""
        chances = [candidate.probability or 0 for candidate in best_of_n(PROMPT, n=24).candidates]
        first = next(index for index in range(3, 24) if chances[index] > max(chances[:index]))
        until = (chances[first] + max(chances[:first])) / 2
        results = [load(batch_size=size)(PROMPT, until=until) for size in (1, 3, 8)]
        for result in results:
            assert (result.record.n, result.winner.index, result.record.stopped_by) == (first + 1, first, "until")
            assert distance(result.image, results[0].image) <= 1
        repeated = best_of_n(PROMPT, n=first + 1)
        assert repeated.winner.index == first
        assert distance(repeated.image, results[0].image) <= 1

    def test_an_uncalibrated_verifier_is_refused_by_name(
        self, best_of_n: BestOfN, verifier: LanguageModelVerifier
    ) -> None:
        config = verifier.config.model_copy(update={"calibration": None})
        uncalibrated = LanguageModelVerifier("raw", config, verifier.model, verifier.tokenizer)
        engine = BestOfN(best_of_n.generator, uncalibrated)
        with pytest.raises(InvalidRequest, match="verifier raw is not calibrated"):
            engine(PROMPT, until=0.9)
        with pytest.raises(InvalidRequest, match=r"refine_below = 0.9 needs a calibrated probability"):
            engine(PROMPT, refine_below=0.9)
        assert engine(PROMPT, n=2).record.passed is None

    def test_a_doubtful_winner_is_finished_in_one_step_more(self, best_of_n: BestOfN) -> None:
        refined = best_of_n(PROMPT, n=3, refine_below=1.0)
        as_it_is, in_two_steps = best_of_n(PROMPT, n=3), best_of_n(PROMPT, n=3, sampling=SamplingParams(steps=2))
        assert refined.winner == in_two_steps.winner.model_copy(update={"refined": True})
        assert distance(refined.image, in_two_steps.image) == 0
        assert distance(refined.image, as_it_is.image) > 1

    def test_what_is_scored_after_the_first_step_is_not_refined(
        self, best_of_n: BestOfN, verifier: LanguageModelVerifier
    ) -> None:
        later = BestOfN(best_of_n.generator, verifier, verifier_step=1)
        with pytest.raises(InvalidRequest, match=r"refine_below: verifier \S+ scores after the first step"):
            later(PROMPT, n=2, refine_below=0.9, sampling=SamplingParams(steps=2))


def no_costs(seconds: float) -> LatencyEstimate:
    raise AssertionError("no budget, so nothing is measured")


class TestPrice:
    @pytest.mark.parametrize(("price", "n", "stopped_by"), [(0.001, 9, "max_n"), (0.01, 6, "price"), (1, 2, "price")])
    def test_a_higher_price_ends_the_search_earlier(self, price: float, n: int, stopped_by: str) -> None:
        result = scripted(batch_size=8)(PROMPT, price=price, max_n=9)
        assert (result.record.n, result.record.stopped_by) == (n, stopped_by)

    @pytest.mark.parametrize("options", [{"price": 0.02}, {"price": 0.02, "until": 0.5}, {"until": 0.9}, {"n": 7}])
    def test_a_stored_result_is_replayed_by_its_policies(self, options: dict[str, Any], tmp_path: Path) -> None:
        """Policies built from the record, shown its verdicts alone, end the search where it ended."""
        (tmp_path / "result.json").write_text(scripted(batch_size=4)(PROMPT, **options).record.model_dump_json())
        record = SearchRecord.model_validate_json((tmp_path / "result.json").read_text())
        settings = record.settings
        verdicts = [Verdict(candidate.score, probability=candidate.probability) for candidate in record.candidates]
        policy = AllPolicies.from_options(SearchOptions.model_validate(settings.limits), no_costs, settings.prior)
        state = SearchState(settings.batch_size or 0)
        while size := policy.next_batch(state):
            batch = verdicts[state.num_generated :][:size]
            state = state.extended([*batch, *[BROKEN] * (size - len(batch))], policy)  # unused ones have no record
        assert (state.verdicts, state.num_generated) == (tuple(verdicts), record.n + record.unused)
        assert policy.stopped_by(state) == record.stopped_by

    def test_a_verifier_without_a_prior_is_refused_by_name(self, best_of_n: BestOfN) -> None:
        with pytest.raises(InvalidRequest, match=r"price = 0\.01 needs .* prior.*, and verifier .* has none: use n"):
            best_of_n(PROMPT, price=0.01)


class TestBudget:
    @pytest.mark.parametrize("top_k", [1, 3])
    @pytest.mark.parametrize("budget_ms", [120, 150, 400])
    def test_the_images_are_finished_in_time(
        self, monkeypatch: pytest.MonkeyPatch, budget_ms: float, top_k: int
    ) -> None:
        """On a clock that only work moves, whatever the budget; most of it is used."""
        fake = FakeClock()
        monkeypatch.setattr("forejudge.session.perf_counter", fake)
        generator = ScriptedGenerator(before_advance=lambda count: fake.advance(0.010 + 0.001 * count))
        best_of_n = BestOfN(generator, ScriptedVerifier(SURE_AT_4))
        result = best_of_n(PROMPT, budget_ms=budget_ms, max_n=1000, top_k=top_k)
        assert result.record.stopped_by == "budget_ms"
        assert len(result.images) == top_k
        assert 0.7 * budget_ms / 1000 < result.timings["total"] <= budget_ms / 1000
        again = best_of_n(PROMPT, n=result.record.n, top_k=top_k)
        assert (again.candidates, again.record.stopped_by) == (result.candidates, "n")

    def test_a_real_search_ends_in_time_and_its_winner_follows_from_n(
        self, best_of_n: BestOfN, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = FakeClock()
        monkeypatch.setattr("forejudge.session.perf_counter", fake)
        generator = copy(best_of_n.generator)

        def advance(candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
            fake.advance(0.010 + 0.001 * len(candidates))
            return best_of_n.generator.advance(candidates, stages)

        monkeypatch.setattr(generator, "advance", advance)
        result = BestOfN(generator, best_of_n.verifier)(PROMPT, budget_ms=100, max_n=100_000)
        assert result.record.stopped_by == "budget_ms"
        assert 0.07 < result.timings["total"] <= 0.1
        repeated = best_of_n(PROMPT, n=result.record.n)
        assert repeated.winner.index == result.winner.index
        assert distance(repeated.image, result.image) <= 1

    @pytest.mark.slow
    def test_most_real_searches_end_in_time(self, best_of_n: BestOfN) -> None:
        """The clock is real and others may use the machine, so a third of the searches may be late."""
        budget_ms = 5000 * best_of_n.costs.measure(PROMPT, SamplingParams(), 4, 10.0).min_seconds
        results = [best_of_n(PROMPT, budget_ms=budget_ms, max_n=100_000, seed=seed) for seed in range(20)]
        late = [result for result in results if result.timings["total"] > 1.1 * budget_ms / 1000]
        assert len(late) <= 7, [result.timings["total"] for result in late]
        assert {result.record.stopped_by for result in results} == {"budget_ms"}

    def test_too_small_a_budget_is_refused(self, best_of_n: BestOfN) -> None:
        with pytest.raises(
            InvalidRequest, match=r"budget_ms = 0\.01 is too small: on this device .* takes at least \d+ ms"
        ):
            best_of_n(PROMPT, budget_ms=0.01)

    def test_it_is_capped_by_max_n_alone(self) -> None:
        result = scripted()(PROMPT, budget_ms=60_000, max_n=11)
        assert (result.record.n, result.record.stopped_by) == (11, "max_n")

    def test_until_may_end_it_sooner(self) -> None:
        result = scripted()(PROMPT, budget_ms=60_000, until=0.9)
        assert (result.record.n, result.record.stopped_by) == (5, "until")

    def test_searches_that_were_late_make_the_next_ones_smaller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake, slowness = FakeClock(), [1.0]
        monkeypatch.setattr("forejudge.session.perf_counter", fake)
        generator = ScriptedGenerator(before_advance=lambda count: fake.advance(slowness[0] * (0.010 + 0.001 * count)))
        best_of_n = BestOfN(generator, ScriptedVerifier({}))

        def search() -> Result:
            return best_of_n(PROMPT, budget_ms=150, max_n=1000)

        quick = search()
        slowness[0] = 3.0
        late, adapted = search(), search()
        assert late.timings["total"] > 0.150
        assert adapted.timings["total"] <= 0.150
        assert adapted.record.n < quick.record.n

    def test_threads_take_turns_so_that_costs_stay_true(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a clock that all work moves: what others did meanwhile would count as slowness."""
        fake, order = FakeClock(), list[int]()
        monkeypatch.setattr("forejudge.session.perf_counter", fake)

        def work(count: int) -> None:
            order.append(get_ident())
            sleep(0)  # let others run if they can
            fake.advance(0.010 + 0.001 * count)

        best_of_n = BestOfN(ScriptedGenerator(before_advance=work), ScriptedVerifier({}))
        alone = best_of_n(PROMPT, budget_ms=100, max_n=1000)
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda seed: best_of_n(PROMPT, budget_ms=100, max_n=1000, seed=seed), range(24)))
        assert {result.record.n for result in results} == {alone.record.n}
        assert len(list(itertools.groupby(order))) <= 25
        assert best_of_n(PROMPT, budget_ms=100, max_n=1000).record.n == alone.record.n > 1

    def test_after_a_warm_up_nothing_is_measured(self) -> None:
        generator = ScriptedGenerator()
        best_of_n = BestOfN(generator, ScriptedVerifier({}), batch_size=4)
        best_of_n.warm_up()
        measured = [count for stage, count in generator.advanced if stage == prefix_stage(2)]
        assert measured == [1, 1, 1, 2, 2, 2, 4, 4, 4]
        best_of_n(PROMPT, budget_ms=60_000, max_n=4)
        assert [count for stage, count in generator.advanced if stage == prefix_stage(2)][len(measured) :] == [4]


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [("a photo of two Stars, a star", ""), ("a cat on a sofa", "cat, on, sofa"), ("ein Stern!", "ein, stern")],
)
def test_words_that_a_generator_does_not_know_are_a_warning(prompt: str, unknown: str) -> None:
    best_of_n = scripted()
    best_of_n.generator.vocabulary = frozenset(["a", "photo", "of", "two", "star", "stars"])
    warnings = best_of_n(prompt, n=1).record.settings.warnings
    assert [f"trained without the words {unknown}:" in warning for warning in warnings] == [True] * bool(unknown)
    assert scripted()(prompt, n=1).record.settings.warnings == (), "without a vocabulary nothing is known"


def test_an_image_that_is_no_square_is_scored_by_its_own_neighbors(
    tiny_generator: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """4 rows of 16 tokens are as many as 8 of 8, the default; 2 x 2 of them are merged by hand."""
    folder = save_tiny_verifier(tmp_path / "verifier", tiny_generator, CUT, merge_size=2)
    best_of_n = BestOfN.from_pretrained(str(tiny_generator), str(folder), device="cpu")
    generator, verifier, sampling = best_of_n.generator, best_of_n.verifier, SamplingParams(height=32, width=128)
    result = best_of_n(PROMPT, n=3, sampling=sampling)
    seeds = tuple(candidate.seed for candidate in result.candidates)
    candidates = generator.start(generator.encode_without_padding(PROMPT, sampling), seeds)
    hidden_NTD = generator.advance(candidates, [prefix_stage(CUT)]).tensor(prefix_stage(CUT))
    assert isinstance(verifier, LanguageModelVerifier)
    connector = verifier.model.connector
    corners = [row * 16 + column for row in range(0, 4, 2) for column in range(0, 16, 2)]
    merged = [connector.standardize(hidden_NTD)[:, [t, t + 1, t + 16, t + 17]].flatten(1) for t in corners]
    text = [torch.tensor(each).expand(3, -1) for each in verifier.question.tokens_around_image(PROMPT)]
    left, right = map(verifier.model.language_model.get_input_embeddings(), text)
    with torch.no_grad():
        embedded = torch.cat([left, connector.layers(torch.stack(merged, 1)), right], 1)
        logits = verifier.model.language_model(inputs_embeds=embedded).logits[:, -1, verifier.answer_token_ids]
    expected = (logits[:, 0] - logits[:, 1]).tolist()
    assert [candidate.score for candidate in result.candidates] == pytest.approx(expected, abs=TOLERANCE)
    assert result.image.size == (128, 32)

    (warning,) = result.record.settings.warnings
    assert "trained on 8 rows of 8 tokens, these images have 4 rows of 16: its verdicts may not hold" in warning
    assert best_of_n(PROMPT, n=1, seed=1, sampling=sampling).record.settings.warnings == (warning,)
    assert caplog.messages.count(warning) == 1
    assert best_of_n(PROMPT, n=1).record.settings.warnings == ()


def test_it_can_be_pickled(best_of_n: BestOfN) -> None:
    copied = pickle.loads(pickle.dumps(best_of_n))
    assert copied(PROMPT, n=2).candidates == best_of_n(PROMPT, n=2).candidates
    assert copied.max_batch_size == 4


_COUNTS = ("n", "max_n", "seed", "image_index", "top_k")
_NO_NUMBERS = ("8", True, [8], np.arange(2), torch.ones(2, dtype=torch.int64), object(), 1j)


class TestDiverse:
    def test_images_are_those_that_differ_and_the_record_says_so(self, best_of_n: BestOfN) -> None:
        """With a large weight the second is the candidate furthest from the winner, by the states it was scored on."""
        found = best_of_n(PROMPT, n=6, top_k=2, diverse=1000)
        session = PromptSession(best_of_n.generator, best_of_n.verifier, PROMPT, SamplingParams(), pool=True)
        session.score(tuple(seeds(found)))
        distance_NN = cosine_distances(torch.stack([session.pooled[seed] for seed in seeds(found)]).double().numpy())
        winner, second = found.images
        assert winner == found.record.winner == best_of_n(PROMPT, n=6).record.winner
        assert second == max(set(range(6)) - {winner}, key=lambda index: distance_NN[winner, index])
        assert found.record.settings.diverse == 1000
        again = best_of_n(PROMPT, n=6, top_k=6)
        assert [distance(found.images[index], again.images[index]) for index in found.images] == [0, 0]

    def test_pooled_states_are_means_over_tokens(self, best_of_n: BestOfN) -> None:
        session = PromptSession(best_of_n.generator, best_of_n.verifier, PROMPT, SamplingParams(), pool=True)
        session.score((5, 6, 7))
        generator = best_of_n.generator
        conditioning = generator.encode_without_padding(PROMPT, generator.defaults)
        candidates = generator.advance(generator.start(conditioning, (5, 6, 7)), [prefix_stage(CUT)])
        expected = candidates.tensor(prefix_stage(CUT)).mean(dim=1)
        assert torch.equal(torch.stack([session.pooled[seed] for seed in (5, 6, 7)]), expected)

    @pytest.mark.parametrize(("top_k", "diverse"), [(3, 0), (1, 5)])
    def test_without_a_weight_or_with_one_image_nothing_changes(
        self, best_of_n: BestOfN, top_k: int, diverse: float
    ) -> None:
        plain = best_of_n(PROMPT, n=6, top_k=top_k)
        found = best_of_n(PROMPT, n=6, top_k=top_k, diverse=diverse)
        assert list(found.images) == list(plain.images)
        assert untimed(found.record)["candidates"] == untimed(plain.record)["candidates"]

    def test_a_verifier_of_images_or_without_calibration_is_refused(self) -> None:
        on_images = BestOfN(ScriptedGenerator(), ScriptedVerifier({}, IMAGE))
        with pytest.raises(
            InvalidRequest, match=r"diverse = 0.5 compares hidden states, and verifier scripted reads image"
        ):
            on_images(PROMPT, n=2, top_k=2, diverse=0.5)
        uncalibrated = scripted()
        uncalibrated.verifier.calibrated = False
        with pytest.raises(InvalidRequest, match=r"diverse = 0.5 needs a calibrated probability"):
            uncalibrated(PROMPT, n=2, top_k=2, diverse=0.5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"n": 0}, "n = 0: Input should be greater than or equal to 1"),
            ({"n": -3}, "n = -3: Input should be greater than or equal to 1"),
            ({"max_n": 0, "until": 0.5}, "max_n = 0: Input should be greater than or equal to 1"),
            ({"budget_ms": 0}, "budget_ms = 0: Input should be greater than 0"),
            ({"budget_ms": -20.5}, "budget_ms = -20.5: Input should be greater than 0"),
            ({"budget_ms": math.nan}, "budget_ms = nan: Input should be a finite number"),
            ({"until": 0}, "until = 0: Input should be greater than 0"),
            ({"price": -1}, "price = -1: Input should be greater than or equal to 0"),
            ({"until": 1.01}, "until = 1.01: Input should be less than or equal to 1"),
            ({"until": math.nan}, "until = nan: Input should be"),
            ({"top_k": 0}, "top_k = 0: Input should be greater than or equal to 1"),
            ({"seeds": []}, "seeds: Tuple should have at least 1 item"),
            ({"seeds": [1, -1]}, "seeds.1 = -1: Input should be greater than or equal to 0"),
            ({"seeds": [2**32]}, "seeds.0 = 4294967296: Input should be less than or equal to 4294967295"),
            ({"seeds": [1, 2], "n": 3}, "n = 3 contradicts the 2 seeds"),
            ({"seeds": [1, 2], "seed": 3}, "seed = 3 would change nothing"),
            *(({name: 10**23}, f"{name} = 10+: Input should be less than") for name in _COUNTS),
            *(({name: 2.0}, f"{name} = 2.0: expected a whole number, not float") for name in _COUNTS),
            *(({name: value}, f"{name}.*: expected a whole number, not") for name in _COUNTS for value in _NO_NUMBERS),
            ({"budget_ms": math.inf}, "budget_ms = inf: Input should be a finite number"),
            ({"budget_ms": "fast"}, "budget_ms = 'fast': expected a number, not str"),
            ({"until": True}, "until = True: expected a number, not bool"),
            ({"seeds": 3}, "seeds = 3: Input should be a valid tuple"),
            ({"seeds": "123"}, "seeds = '123': Input should be a valid tuple"),
            ({"seeds": np.array(3)}, "seeds: Input should be a valid tuple"),
            ({"seeds": [0.5]}, r"seeds.0 = 0.5: expected a whole number, not float"),
            ({"seeds": np.arange(2.0)}, "seeds.0.*: expected a whole number, not float64"),
            ({"seeds": torch.eye(2)}, "seeds.0.*: expected a whole number, not Tensor"),
            ({"seeds": itertools.count()}, "seeds: Tuple should have at most 10000 items"),
            ({"sampling": {"guidance_scale": 1e308}}, "guidance_scale = 1e.308: Input should be less than"),
            ({"sampling": {"lora_scale": math.nan}}, "lora_scale = nan: Input should be a finite number"),
            ({"sampling": {"lora_scale": math.inf}}, "lora_scale = inf: Input should be a finite number"),
            ({"sampling": {"steps": 2.0}}, "steps = 2.0: expected a whole number"),
            ({"sampling": 3}, "sampling = 3: Input should be a valid dictionary"),
            ({"options": {"n": 3}}, "options = .*: expected SearchOptions, not dict"),
            ({"on_progress": 3}, "on_progress = 3: expected a function"),
            ({"sead": 3}, "sead = 3: Extra inputs are not permitted"),
            ({"sampling": SamplingParams(height=50)}, "multiples of 32"),
        ],
    )
    def test_a_request_that_cannot_be_served(self, best_of_n: BestOfN, request_: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidRequest, match=said):
            best_of_n(PROMPT, **request_)

    @pytest.mark.parametrize("prompt", [None, 3, b"a star", ["a star"], np.array("a star")])
    def test_a_prompt_that_is_no_text(self, prompt: Any) -> None:
        with pytest.raises(InvalidRequest, match=r"prompt = .*: expected text, not "):
            scripted()(prompt, n=1)

    @pytest.mark.parametrize("options", [{}, {"budget_ms": 60_000}])
    def test_half_of_a_surrogate_pair(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest, match="half of a pair"):
            scripted()("a \ud83d star", **options)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"verifier": None}, "verifier = None: expected a Verifier, such as load_verifier returns"),
            ({"generator": None}, "NoneType is not supported"),
            ({"prompt_cache_size": -1}, "prompt_cache_size = -1: expected a whole number from 0"),
            ({"prompt_cache_size": "many"}, "prompt_cache_size = 'many': expected a whole number, not str"),
            ({"batch_size": 2.5}, "batch_size = 2.5: expected a whole number, not float"),
            ({"batch_size": 10**23}, "batch_size = 10+: Input should be less than"),
            ({"verifier_step": None}, "verifier_step = None: Input should be a valid integer"),
            ({"verifier_step": 10**23}, "verifier_step = 10+: Input should be less than"),
            ({"compiled": "perhaps"}, "compiled = 'perhaps': Input should be a valid boolean"),
        ],
    )
    def test_models_and_options_of_other_types(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidRequest, match=said):
            BestOfN(**{"generator": ScriptedGenerator(), "verifier": ScriptedVerifier({}), **options})

    @pytest.mark.parametrize("name", ["generator", "verifier", "device", "dtype", "offload", "batch_size"])
    @pytest.mark.parametrize("value", [3.5, ["miniature"], object()])
    def test_names_of_other_types(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidRequest, match=f"^{name}"):
            BestOfN.from_pretrained(**{name: value})

    @pytest.mark.parametrize("limits", [{}, {"budget_ms": 60_000}, {"until": 0.5}])
    def test_an_empty_prompt(self, best_of_n: BestOfN, limits: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest, match="the prompt is empty"):
            best_of_n("  ", **limits)

    def test_a_batch_of_none(self, load: Callable[..., BestOfN]) -> None:
        with pytest.raises(InvalidRequest, match="batch_size = 0"):
            load(batch_size=0)

    def test_a_verifier_made_for_another_generator(self, best_of_n: BestOfN, verifier: LanguageModelVerifier) -> None:
        assert verifier.config.generator is not None
        other = verifier.config.generator.model_copy(update={"width": 2240})
        config = verifier.config.model_copy(update={"generator": other})
        stranger = LanguageModelVerifier("stranger", config, verifier.model, verifier.tokenizer)
        with pytest.raises(MismatchError, match=r"width = 2240, but .* width = 64"):
            BestOfN(best_of_n.generator, stranger)

    def test_a_generator_without_a_known_verifier(self, tiny_generator: Path) -> None:
        with pytest.raises(InvalidRequest, match=f"no verifier is known for generator '{tiny_generator}'"):
            BestOfN.from_pretrained(str(tiny_generator))

    @pytest.mark.parametrize("name", ["sana-sprint-1.6", "C:\\models\\gen", "no such folder"])
    def test_a_generator_that_is_not_there(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match=r"unknown generator .* expected a folder, a hub id"):
            BestOfN.from_pretrained(name)

    def test_a_pipeline_of_another_kind(self, verifier: LanguageModelVerifier) -> None:
        with pytest.raises(InvalidRequest, match="str is not supported: use one of SanaSprintPipeline"):
            BestOfN("a pipeline", verifier)


class TestRecord:
    def test_it_says_how_to_reproduce_the_result(self, result: Result, best_of_n: BestOfN) -> None:
        record = result.record
        assert (record.prompt, record.n, record.unused, record.stopped_by) == (PROMPT, 6, 0, "n")
        settings = record.settings
        assert (settings.seed, settings.image_index, settings.sampling) == (3, 0, SamplingParams(steps=2))
        assert (settings.device, settings.dtype, settings.batch_size) == ("cpu", "float32", 4)
        assert (settings.generator, settings.verifier) == (best_of_n.generator.name, best_of_n.verifier.name)
        assert set(record.versions) == {"forejudge", "torch", "diffusers", "transformers"}
        assert settings.warnings == ()

    def test_it_says_which_weights_were_loaded(self, result: Result, best_of_n: BestOfN) -> None:
        generator, verifier = result.record.sources
        assert (generator.part, generator.model) == ("generator", best_of_n.generator.name)
        assert (verifier.part, verifier.model) == ("verifier", best_of_n.verifier.name)
        assert (generator.weights, verifier.weights) == (best_of_n.generator.fingerprint, best_of_n.verifier.digest)
        assert generator.commit is verifier.commit is None

    def test_it_says_which_commits_were_loaded(
        self, tiny_generator: Path, tiny_verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        add_to_cache(tmp_path, "owner/tiny", tiny_generator, ref="v1")
        add_to_cache(tmp_path, "owner/verifier", tiny_verifier, commit="e" * 40)
        best = BestOfN.from_pretrained("owner/tiny@v1", "owner/verifier", device="cpu")
        found = [source.model_dump(exclude={"weights"}) for source in best(PROMPT, n=1).record.sources]
        assert found == [
            {"part": "generator", "model": "owner/tiny", "revision": "v1", "commit": COMMIT},
            {"part": "verifier", "model": "owner/verifier", "revision": None, "commit": "e" * 40},
        ]

    def test_a_pipeline_passed_in_is_identified_by_its_weights(
        self, tiny_generator: Path, verifier: LanguageModelVerifier
    ) -> None:
        best = BestOfN(load_pipeline(tiny_generator), verifier)
        source = best(PROMPT, n=1).record.sources[0]
        assert (source.model, source.weights) == ("a pipeline given by the caller", best.generator.fingerprint)

    def test_a_record_without_sources_is_still_read(self, result: Result) -> None:
        older = json.loads(result.record.model_dump_json())
        del older["sources"]
        assert SearchRecord.model_validate(older).sources == ()

    def test_stages_say_which_candidates_were_finished(self, result: Result) -> None:
        stages = [candidate.stage for candidate in result.candidates]
        assert [index for index, stage in enumerate(stages) if stage == "image"] == sorted(result.images)
        assert stages.count("prefix(2 blocks, step 0)") == 4
        assert [candidate.index for candidate in result.candidates] == list(range(6))

    def test_times_are_by_stage(self, result: Result) -> None:
        assert set(result.timings) == {"encode", "prefix", "verify", "suffix", "decode", "total"}
        assert sum(result.timings.values()) < 2 * result.timings["total"]

    def test_it_survives_json(self, result: Result) -> None:
        assert SearchRecord.model_validate_json(result.record.model_dump_json()) == result.record

    @pytest.mark.parametrize(("best", "passed"), [(0.5, True), (0.49, False)])
    def test_it_says_when_no_candidate_passed_and_returns_the_best(self, best: float, passed: bool) -> None:
        result = scripted(probabilities(0.1, best, 0.2))(PROMPT, n=3)
        assert result.record.passed is passed
        assert result.winner.index == 1
        assert result.image.size == (1, 1)

    def test_a_verifier_for_other_weights_is_a_warning(
        self, best_of_n: BestOfN, verifier: LanguageModelVerifier, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = verifier.config.model_copy(update={"generator_fingerprint": "feedfacefeedface"})
        engine = BestOfN(best_of_n.generator, LanguageModelVerifier("old", config, verifier.model, verifier.tokenizer))
        (warning,) = engine(PROMPT, n=2).record.settings.warnings
        assert caplog.messages == [warning]
        assert "feedfacefeedface" in warning
        assert best_of_n.generator.fingerprint in warning

    def test_progress_is_reported_batch_by_batch(self, best_of_n: BestOfN) -> None:
        told: list[tuple[int, int]] = []
        best_of_n(PROMPT, n=10, on_progress=lambda *numbers: told.append(numbers))
        assert told == [(4, 10), (8, 10), (10, 10)]


class TestBrokenImages:
    def test_the_next_best_wins_and_the_record_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        (broken, *_) = probabilities(0.9, 0.6)
        engine = BestOfN(ScriptedGenerator(broken=[broken]), ScriptedVerifier(probabilities(0.9, 0.6, 0.7)))
        result = engine(PROMPT, n=3)
        assert (result.winner.index, result.record.passed, list(result.images)) == (2, True, [2])
        assert [candidate.broken for candidate in result.candidates] == [True, False, False]
        (warning,) = result.record.settings.warnings
        assert warning == caplog.messages[-1]
        assert f"the image of candidate 0, seed {broken}, has values that are not finite" in warning
        assert engine("a star", n=1).record.settings.warnings == ()

    def test_a_verifier_of_images_gives_it_no_score(self) -> None:
        (broken, *_) = probabilities(0.9)
        engine = BestOfN(ScriptedGenerator(broken=[broken]), ScriptedVerifier(probabilities(0.9, 0.6), IMAGE))
        record = engine(PROMPT, n=2).record
        assert (record.candidates[0].score, record.candidates[0].broken, record.winner) == (-math.inf, True, 1)
        assert record.model_dump(mode="json")["candidates"][0]["score"] is None
        assert SearchRecord.model_validate_json(record.model_dump_json()) == record

    @pytest.mark.parametrize("part", ["block after the cut", "decoder"])
    def test_real_models_are_checked_after_the_suffix_and_after_decoding(
        self, load: Callable[..., BestOfN], part: str
    ) -> None:
        engine = load()
        generator: Any = engine.generator
        modules = {"block after the cut": generator.transformer.transformer_blocks[-1]}
        modules["decoder"] = generator.autoencoder.decoder
        first = itertools.count()

        def spoil(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            return output * math.inf if next(first) == 0 else output

        expected = engine(PROMPT, n=4, top_k=2)
        handle = modules[part].register_forward_hook(spoil)
        result = engine(PROMPT, n=4)
        handle.remove()
        assert result.winner.index == list(expected.images)[1]
        assert distance(result.image, expected.images[result.winner.index]) <= 1

    def test_a_budget_is_measured_all_the_same(self) -> None:
        generator = ScriptedGenerator(broken=[candidate_seed(index, "warm-up", 1, 0) for index in range(3)])
        assert BestOfN(generator, ScriptedVerifier(SURE_AT_4))(PROMPT, budget_ms=60_000, max_n=3).record.n == 3


class TestOutOfMemory:
    @pytest.fixture
    def cramped(self, load: Callable[..., BestOfN], monkeypatch: pytest.MonkeyPatch) -> tuple[BestOfN, list[int]]:
        """Return an engine with memory for two candidates, and the sizes of the batches it tried."""
        engine = load()
        start = engine.generator.start
        sizes: list[int] = []

        def start_two(conditioning: Any, seeds: tuple[int, ...]) -> Any:
            sizes.append(len(seeds))
            if len(seeds) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return start(conditioning, seeds)

        monkeypatch.setattr(engine.generator, "start", start_two)
        return engine, sizes

    def test_the_batch_is_halved_and_the_winner_is_the_same(
        self, cramped: tuple[BestOfN, list[int]], best_of_n: BestOfN
    ) -> None:
        engine, sizes = cramped
        result, expected = engine(PROMPT, n=9), best_of_n(PROMPT, n=9)
        assert sizes == [9, 4, 2, 2, 2, 2, 1]
        assert result.winner.index == expected.winner.index
        assert distance(result.image, expected.image) <= 1

    def test_with_a_budget_too(self, cramped: tuple[BestOfN, list[int]]) -> None:
        engine, sizes = cramped
        result = engine(PROMPT, budget_ms=600_000, max_n=5)
        assert (result.record.n, result.record.stopped_by) == (5, "max_n")
        assert [size for size, _ in itertools.groupby(sizes)] == [1, 2, 4, 2, 1]  # measured up to 4, then generated


class TestScoredInALaterStep:
    def test_the_verdict_is_of_that_step(self, load: Callable[..., BestOfN], best_of_n: BestOfN) -> None:
        two_steps, later = SamplingParams(steps=2), load(verifier_step=1, batch_size=4)
        found = later(PROMPT, n=4, sampling=two_steps)
        assert found.winner.stage == "image"
        assert {candidate.stage for candidate in found.candidates} == {"image", f"prefix({CUT} blocks, step 1)"}
        first = best_of_n(PROMPT, n=4, sampling=two_steps)
        assert seeds(found) == seeds(first)
        assert scores(found) != scores(first)

    def test_its_image_is_that_of_the_reference_pipeline(
        self, load: Callable[..., BestOfN], tiny_generator: Path
    ) -> None:
        found = load(verifier_step=1, batch_size=1)(PROMPT, n=2, sampling=SamplingParams(steps=2))
        (reference,) = call_reference_pipeline(load_pipeline(tiny_generator), [found.winner.seed], 2)
        assert distance(found.image, reference) <= 1

    def test_a_step_out_of_range_is_refused(self, load: Callable[..., BestOfN]) -> None:
        with pytest.raises(InvalidRequest, match="needs more than the 1 steps asked for"):
            load(verifier_step=1)(PROMPT, n=2)
        with pytest.raises(InvalidRequest, match="verifier_step = -1"):
            load(verifier_step=-1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_works(load: Callable[..., BestOfN], dtype: str) -> None:
    result = load(dtype=dtype, batch_size=2)(PROMPT, n=2)
    assert result.record.settings.dtype == dtype
    assert result.image.size == (64, 64)
