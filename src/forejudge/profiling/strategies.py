"""Ways to pick the best of N, which draw the same candidates: a search of ours, and one that decodes all of them."""

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
from forejudge.profiling.measure import measure_time_interleaved
from forejudge.profiling.models import ProfiledModels, scoring_stage
from forejudge.profiling.roofline import DeviceRates, StageRun, total_flops, total_roofline_ms
from forejudge.profiling.stages import CLIP, DECODE, ENCODE, PREFIX, SUFFIX, StageCost
from forejudge.session import PromptSession
from forejudge.types import IMAGE, Candidates, Phase, Stage, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.published_import import official_score

_BATCH_SIZE_ROUNDS = 5  # of a batch size
GENERATION_STAGES = (PREFIX, SUFFIX, DECODE)  # the stages between noise and a picture


@dataclass(frozen=True)
class StrategyOutput:
    """The place of the winner's seed, and its picture."""

    winner: int
    image: Image


class SearchStrategy(ABC):
    """A way to pick the best of N with the verifier of a kind. `batch_size` candidates, up to `max_batch_size`, go together."""

    name: ClassVar[str]
    required_input: ClassVar[str]  # what a verifier must read, in words

    def __init__(self, models: ProfiledModels, kind: str, max_batch_size: int) -> None:
        self.models, self.kind, self.verifier = models, kind, models.verifiers[kind]
        self.batch_size = self._best_batch_size(max_batch_size)

    @staticmethod
    @abstractmethod
    def supports(verifier: Verifier) -> bool:
        """Whether it is a way for such a verifier."""

    @abstractmethod
    def _best_batch_size(self, max_batch_size: int) -> int:
        """With how many at once a candidate takes the least time."""

    @abstractmethod
    def run(self, seeds: tuple[int, ...]) -> StrategyOutput:
        """From the prompt to the winner's picture."""

    @abstractmethod
    def scoring(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """The part of it that draws and judges candidates, ready to be run."""

    @abstractmethod
    def stage_runs(self, n: int) -> Sequence[StageRun]:
        """All that a run with `n` candidates consists of."""

    @property
    def eager(self) -> Self:
        """The same with nothing compiled."""
        found = copy(self)
        found.models = self.models.eager_or_self
        found.verifier = found.models.verifiers[self.kind]
        return found

    def flops(self, n: int) -> int:
        """Floating-point operations of a run."""
        return total_flops(self.stage_runs(n), self._costs)

    def roofline_ms(self, n: int, rates: DeviceRates) -> float:
        """The least time of a run."""
        return total_roofline_ms(self.stage_runs(n), self._costs, self.models.generator.dtype.itemsize, rates)

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        """Of each stage."""
        return self.models.costs

    @property
    def candidate_stages(self) -> tuple[str, ...]:
        """What every candidate goes through until it is judged."""
        (stage,) = self.verifier.reads
        image_stages = (CLIP,) if stage == IMAGE else ()
        return GENERATION_STAGES[: stage.phase] + image_stages + (scoring_stage(self.kind),)


class BatchedSearch(SearchStrategy):
    """This package's own loop."""

    def _best_batch_size(self, max_batch_size: int) -> int:
        """Measured here in turns, among the powers of 2 for which memory suffices."""
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
        best = BestOfN(models.generator, self.verifier, batch_size=self.batch_size)
        found = best(models.prompt, seeds=seeds, sampling=models.sampling)
        return StrategyOutput(found.record.winner, found.image)

    def scoring(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """See `SearchStrategy.scoring`."""
        batches = [seeds[first : first + self.batch_size] for first in range(0, len(seeds), self.batch_size)]
        return partial(_score_all, self._session(), batches)

    def stage_runs(self, n: int) -> list[StageRun]:
        """See `SearchStrategy.stage_runs`: nothing is done twice, and what nobody reads is done for the winner alone."""
        num_full, remainder = divmod(n, self.batch_size)
        batches = [
            (size, repeats) for size, repeats in ((self.batch_size, num_full), (remainder, 1)) if size and repeats
        ]
        judged = [StageRun(stage, *batch) for stage in self.candidate_stages for batch in batches]
        winner_runs = [StageRun(stage, 1) for stage in GENERATION_STAGES if stage not in self.candidate_stages]
        return [StageRun(ENCODE, 1), *judged, *winner_runs]

    def _session(self) -> PromptSession:
        models = self.models
        return PromptSession(models.generator, self.verifier, models.prompt, models.sampling)


def _score_all(session: PromptSession, batches: Sequence[tuple[int, ...]]) -> None:
    for batch in batches:
        session.score(batch)


class Forejudge(BatchedSearch):
    """Judged before they are drawn, from a hidden state or a latent; only the winner is finished."""

    name, required_input = "forejudge", "hidden or latent"

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return IMAGE not in verifier.reads


class DecodeAll(BatchedSearch):
    """Every candidate is decoded and seen by CLIP, with nothing done twice: MLLM w/ CLIP as well as it can be run."""

    name, required_input = "decode-all", "clip"

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return IMAGE in verifier.reads


# FOLDED: What the published release of VHS does at inference (aimagelab/VHS), done with the same models.


_BEAMS, _NEW_TOKENS = 3, 1


class Official(SearchStrategy):
    """Candidates one at a time, the prompt encoded for each; the winner is drawn again from its seed.

    The output of every block that runs is copied to the CPU. The language model answers by a beam search for one
    token, whose probability is the score. Nothing is compiled. Raises InvalidRequest for a verifier with a head, which
    does not answer so.
    """

    name, required_input = "official", "hidden, latent or clip"

    def __init__(self, models: ProfiledModels, kind: str, max_batch_size: int) -> None:
        super().__init__(models.eager_or_self, kind, max_batch_size)
        if self.verifier.config.has_head:
            raise InvalidRequest(f"verifier {self.verifier.name} gives no answer in words: official cannot be run")

    @staticmethod
    def supports(verifier: Verifier) -> bool:
        """See `SearchStrategy.supports`."""
        return True

    def _best_batch_size(self, max_batch_size: int) -> int:
        """It knows but one."""
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
        """See `SearchStrategy.stage_runs`; each beam is one of a batch, even of the connector, which runs for all at once."""
        *input_stages, judged = self.candidate_stages
        each = [StageRun(stage, 1, n) for stage in (ENCODE, *input_stages)] + [StageRun(judged, _BEAMS, n)]
        return each + [StageRun(stage, 1) for stage in (ENCODE, *GENERATION_STAGES)]

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        return self.models.padded_costs

    def _scores(self, seeds: tuple[int, ...]) -> list[float]:
        return [self._score(seed) for seed in seeds]

    @torch.no_grad()
    def _score(self, seed: int) -> float:
        """P(yes) where the answer says yes, else -P(no)."""
        (stage,) = self.verifier.reads
        candidate, recorded_NTD = self._generate(seed, stage)
        if stage.phase is Phase.PREFIX:
            tokens_NTD = recorded_NTD.to(candidate.tensor(stage).device)
        else:
            tokens_NTD = self.verifier.verifier_input.tokens(candidate)
        return self._answer(tokens_NTD)

    def _generate(self, seed: int, stage: Stage) -> tuple[Candidates, Tensor]:
        """A candidate that stands at the stage, and the output of the last block that it went through, on the CPU."""
        generator = self.models.generator
        blocks = stage.blocks if stage.phase is Phase.PREFIX else generator.architecture.num_blocks
        candidate = generator.start(generator.encode(self.models.prompt, self.models.sampling), (seed,))
        for num_run in range(1, blocks + 1):
            candidate = generator.advance(candidate.without_views(), [prefix_stage(num_run)])
            recorded_NTD = candidate.tensor(prefix_stage(num_run)).cpu()
        return generator.advance(candidate, [stage]), recorded_NTD

    def _answer(self, tokens_NTD: Tensor) -> float:
        model, tokenizer = self.verifier.model, self.verifier.tokenizer
        texts = self.verifier.question.tokens_around_image(self.models.prompt)
        left_NL, right_NL = (torch.tensor([text], device=tokens_NTD.device) for text in texts)
        embedded_NSE = model.embed(tokens_NTD.to(next(model.parameters()).dtype), left_NL, right_NL)
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
