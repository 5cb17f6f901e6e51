"""Strategies of choosing the best of N: this package's search, decoding every candidate, and the published release.

All of them generate the same candidates from the same seeds.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import GenerationConfig

from forejudge.best_of_n import BestOfN
from forejudge.costs import CostModel
from forejudge.device import free_memory
from forejudge.errors import InvalidRequest
from forejudge.profiling.figures import DECODE, ENCODE, LATER_STEPS, PREFIX, SUFFIX, DeviceRates, scoring_stage
from forejudge.profiling.measure import StageCost, measure_time_interleaved
from forejudge.profiling.models import ProfiledModels
from forejudge.profiling.roofline import StageRun, total_flops, total_roofline_ms
from forejudge.session import PromptSession
from forejudge.types import IMAGE, Candidates, Grid, Phase, Stage, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.published_import import official_score

_BATCH_SIZE_ROUNDS = 5  # rounds that time each batch size
_BEAMS, _NEW_TOKENS = 3, 1  # of the published release's answer

# Stages that every candidate runs before a verifier reads it, by the phase that it reads.
_STAGES_BEFORE = {
    Phase.PREFIX: (PREFIX,),
    Phase.LATENT: (PREFIX, SUFFIX),
    Phase.IMAGE: (PREFIX, SUFFIX, LATER_STEPS, DECODE),
}


@dataclass(frozen=True)
class StrategyOutput:
    """Index of the winner's seed, and its image."""

    winner: int
    image: Image


class SearchStrategy(ABC):
    """A way to choose the best of N with one kind of verifier, `batch_size` candidates at once."""

    name: ClassVar[str]
    required_input: ClassVar[str]  # kinds of verifier input, in words

    def __init__(self, models: ProfiledModels, kind: str, max_batch_size: int) -> None:
        self.models, self.kind, self.verifier = models, kind, models.verifiers[kind]
        self.batch_size = self._best_batch_size(max_batch_size)

    @staticmethod
    @abstractmethod
    def supports(verifier: Verifier) -> bool:
        """Return whether the strategy can use a verifier."""

    @abstractmethod
    def _best_batch_size(self, max_batch_size: int) -> int:
        """Return the batch size at which a candidate takes the least time."""

    @abstractmethod
    def run(self, seeds: tuple[int, ...]) -> StrategyOutput:
        """Run from the prompt to the winner's image."""

    @abstractmethod
    def scoring(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """Return a call that generates and scores the candidates, without finishing one."""

    @abstractmethod
    def stage_runs(self, n: int) -> Sequence[StageRun]:
        """List all stages that a run with `n` candidates consists of."""

    @property
    def eager(self) -> Self:
        """The strategy with nothing compiled."""
        clone = copy(self)
        clone.models = self.models.eager_or_self
        clone.verifier = clone.models.verifiers[self.kind]
        return clone

    def flops(self, n: int) -> int:
        """Return the FLOPs of a run with `n` candidates."""
        return total_flops(self.stage_runs(n), self._costs)

    def roofline_ms(self, n: int, rates: DeviceRates) -> float:
        """Return the roofline of a run with `n` candidates."""
        return total_roofline_ms(self.stage_runs(n), self._costs, rates)

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        """Cost of each stage."""
        return self.models.costs

    @property
    def candidate_stages(self) -> tuple[str, ...]:
        """Stages that every candidate runs, the scoring last."""
        (stage,) = self.verifier.reads
        before = [name for name in _STAGES_BEFORE[stage.phase] if name in self.models.stages]
        return (*before, *self.models.input_stages(self.kind), scoring_stage(self.kind))


class BatchedSearch(SearchStrategy):
    """The search of this package."""

    def _best_batch_size(self, max_batch_size: int) -> int:
        """Time the powers of 2 that fit in memory, taking turns."""
        models = self.models
        costs = CostModel(models.generator, self.verifier).measure(
            models.prompt, models.sampling, max_batch_size, math.inf
        )
        free_memory()
        session = self._session()
        batches = {size: tuple(range(size)) for size, seconds in costs.batch.items() if math.isfinite(seconds)}
        workloads = {size: partial(session.score, seeds) for size, seeds in batches.items()}
        timings = measure_time_interleaved(workloads, models.generator.device, _BATCH_SIZE_ROUNDS, warm_up=0)
        return min(timings, key=lambda size: timings[size].median / size)

    def run(self, seeds: tuple[int, ...]) -> StrategyOutput:
        """See `SearchStrategy.run`."""
        models = self.models
        best_of_n = BestOfN(models.generator, self.verifier, batch_size=self.batch_size)
        result = best_of_n(models.prompt, seeds=seeds, sampling=models.sampling)
        return StrategyOutput(result.record.winner, result.image)

    def scoring(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """See `SearchStrategy.scoring`."""
        batches = [seeds[first : first + self.batch_size] for first in range(0, len(seeds), self.batch_size)]
        return partial(_score_all, self._session(), batches)

    def stage_runs(self, n: int) -> list[StageRun]:
        """See `SearchStrategy.stage_runs`. Stages that the verifier does not need run for the winner alone."""
        num_full, remainder = divmod(n, self.batch_size)
        batches = [
            (size, repeats) for size, repeats in ((self.batch_size, num_full), (remainder, 1)) if size and repeats
        ]
        candidate_runs = [StageRun(stage, *batch) for stage in self.candidate_stages for batch in batches]
        winner_stages = [stage for stage in self.models.generation_stages if stage not in self.candidate_stages]
        return [StageRun(ENCODE, 1), *candidate_runs, *(StageRun(stage, 1) for stage in winner_stages)]

    def _session(self) -> PromptSession:
        models = self.models
        return PromptSession(models.generator, self.verifier, models.prompt, models.sampling)


def _score_all(session: PromptSession, batches: Sequence[tuple[int, ...]]) -> None:
    for batch in batches:
        session.score(batch)


class Forejudge(BatchedSearch):
    """Score candidates from a hidden state, a latent or its preview; finish only the winner."""

    name, required_input = "forejudge", "hidden, latent or preview"

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return IMAGE not in verifier.reads


class DecodeAll(BatchedSearch):
    """Decode every candidate and score its image: the paper's MLLM w/ CLIP with nothing computed twice."""

    name, required_input = "decode-all", "clip"

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return IMAGE in verifier.reads


class Official(SearchStrategy):
    """Inference as the published release of VHS does it (aimagelab/VHS), with the same models.

    Candidates run one at a time, the prompt is encoded for each, and the winner is generated again from its seed. The
    output of every block of the first step is copied to the CPU. The language model answers by a beam search for one
    token, whose probability is the score. Nothing is compiled. Raises InvalidRequest for a verifier with a head, which
    has no token to answer with.
    """

    name, required_input = "official", "hidden, latent, clip or preview"

    def __init__(self, models: ProfiledModels, kind: str, max_batch_size: int) -> None:
        super().__init__(models.eager_or_self, kind, max_batch_size)
        if self.verifier.config.has_head:
            raise InvalidRequest(
                f"verifier {self.verifier.name} answers by a head, not by a token: leave out --strategy official"
            )

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return True

    def _best_batch_size(self, max_batch_size: int) -> int:
        """See `SearchStrategy._best_batch_size`: candidates run one at a time."""
        return 1

    def run(self, seeds: tuple[int, ...]) -> StrategyOutput:
        """See `SearchStrategy.run`."""
        scores = self._scores(seeds)
        winner = scores.index(max(scores))
        return StrategyOutput(winner, self._generate(seeds[winner], IMAGE)[0].images[0])

    def scoring(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """See `SearchStrategy.scoring`."""
        return partial(self._scores, seeds)

    def stage_runs(self, n: int) -> Sequence[StageRun]:
        """See `SearchStrategy.stage_runs`. Each beam counts as one of a batch, for the connector too."""
        *input_stages, scoring = self.candidate_stages
        candidate_runs = [StageRun(stage, 1, n) for stage in (ENCODE, *input_stages)] + [StageRun(scoring, _BEAMS, n)]
        return candidate_runs + [StageRun(stage, 1) for stage in (ENCODE, *self.models.generation_stages)]

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        return self.models.padded_costs

    def _scores(self, seeds: tuple[int, ...]) -> list[float]:
        return [self._score(seed) for seed in seeds]

    @torch.no_grad()
    def _score(self, seed: int) -> float:
        """Return P(yes) where the answer says yes, else -P(no)."""
        (stage,) = self.verifier.reads
        candidate, recorded_NTD = self._generate(seed, stage)
        if stage.phase is Phase.PREFIX:
            tokens_NTD = recorded_NTD.to(candidate.tensor(stage).device)
        else:
            tokens_NTD = self.verifier.verifier_input.tokens(candidate)
        return self._answer(tokens_NTD, self.verifier.verifier_input.grid(candidate))

    def _generate(self, seed: int, stage: Stage) -> tuple[Candidates, Tensor]:
        """Return a candidate at a stage, and the output of the last block recorded on its way, on the CPU."""
        generator = self.models.generator
        blocks = stage.blocks if stage.phase is Phase.PREFIX else generator.architecture.num_blocks
        candidate = generator.start(generator.encode(self.models.prompt, self.models.sampling), (seed,))
        for num_run in range(1, blocks + 1):
            candidate = generator.advance(candidate.without_views(), [prefix_stage(num_run)])
            recorded_NTD = candidate.tensor(prefix_stage(num_run)).cpu()
        return generator.advance(candidate, [stage]), recorded_NTD

    def _answer(self, tokens_NTD: Tensor, grid: Grid | None) -> float:
        model, tokenizer = self.verifier.model, self.verifier.tokenizer
        texts = self.verifier.question.tokens_around_image(self.models.prompt)
        left_NL, right_NL = (torch.tensor([text], device=tokens_NTD.device) for text in texts)
        embedded_NSE = model.embed(tokens_NTD.to(next(model.parameters()).dtype), left_NL, right_NL, grid)
        output = model.language_model.generate(
            inputs_embeds=embedded_NSE,
            attention_mask=torch.ones(embedded_NSE.shape[:2], dtype=torch.long, device=embedded_NSE.device),
            generation_config=GenerationConfig(
                num_beams=_BEAMS,
                max_new_tokens=_NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            ),
        )
        yes, no = self.verifier.answer_token_ids
        probability_V = output.scores[0][0].softmax(-1)
        answer_text = tokenizer.decode(output.sequences[0], skip_special_tokens=True)
        return official_score(float(probability_V[yes]), float(probability_V[no]), answer_text)
