"""What the published release of VHS does at inference (aimagelab/VHS), done with the same models."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import GenerationConfig

from forejudge.errors import InvalidRequest
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.stage_costs import ENCODE, StageCost
from forejudge.profiling.stage_runs import StageRun
from forejudge.profiling.strategies import DRAWING, Picked, Strategy
from forejudge.types import IMAGE, Candidates, Phase, Stage, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.official_score import official_score

_BEAMS, _NEW_TOKENS = 3, 1


class Official(Strategy):
    """Candidates one at a time, the prompt encoded for each; the winner is drawn again from its seed.

    The output of every block that runs is copied to the CPU. The language model answers by a beam search for one
    token, whose probability is the score. Nothing is compiled. Raises InvalidRequest for a verifier with a head, which
    does not answer so.
    """

    name, needs = "official", "hidden, latent or clip"

    def __init__(self, models: Profiled, kind: str, most: int) -> None:
        super().__init__(models.uncompiled, kind, most)
        if self.verifier.config.has_head:
            raise InvalidRequest(f"verifier {self.verifier.name} gives no answer in words: official cannot be run")

    @staticmethod
    def takes(verifier: Verifier) -> bool:
        """See `Strategy.takes`."""
        return True

    def _best_batch_size(self, most: int) -> int:
        """It knows but one."""
        return 1

    def run(self, seeds: tuple[int, ...]) -> Picked:
        """See `Strategy.run`."""
        scores = self._scores(seeds)
        winner = scores.index(max(scores))
        return Picked(winner, self._drawn(seeds[winner], IMAGE)[0].pictures[0])

    def judging(self, seeds: tuple[int, ...]) -> Callable[[], object]:
        """See `Strategy.judging`."""
        return partial(self._scores, seeds)

    def stage_runs(self, n: int) -> Sequence[StageRun]:
        """See `Strategy.stage_runs`; each beam is one of a batch, even of the connector, which runs for all at once."""
        *seen, judged = self.candidate_stages
        each = [StageRun(stage, 1, n) for stage in (ENCODE, *seen)] + [StageRun(judged, _BEAMS, n)]
        return each + [StageRun(stage, 1) for stage in (ENCODE, *DRAWING)]

    @property
    def _costs(self) -> Mapping[str, StageCost]:
        return self.models.padded_costs

    def _scores(self, seeds: tuple[int, ...]) -> list[float]:
        return [self._score(seed) for seed in seeds]

    @torch.no_grad()
    def _score(self, seed: int) -> float:
        """P(yes) where the answer says yes, else -P(no)."""
        (stage,) = self.verifier.reads
        candidate, recorded_NTD = self._drawn(seed, stage)
        if stage.phase is Phase.PREFIX:
            tokens_NTD = recorded_NTD.to(candidate.tensor(stage).device)
        else:
            tokens_NTD = self.verifier.reading.tokens(candidate)
        return self._answer(tokens_NTD)

    def _drawn(self, seed: int, stage: Stage) -> tuple[Candidates, Tensor]:
        """A candidate that stands at the stage, and the output of the last block that it went through, on the CPU."""
        generator = self.models.generator
        blocks = stage.blocks if stage.phase is Phase.PREFIX else generator.architecture.num_blocks
        candidate = generator.start(generator.encode(self.models.prompt, self.models.sampling), (seed,))
        for after in range(1, blocks + 1):
            candidate = generator.advance(candidate.to_keep(), [prefix_stage(after)])
            recorded_NTD = candidate.tensor(prefix_stage(after)).cpu()
        return generator.advance(candidate, [stage]), recorded_NTD

    def _answer(self, tokens_NTD: Tensor) -> float:
        model, tokenizer = self.verifier.model, self.verifier.tokenizer
        texts = self.verifier.question.tokens_around_picture(self.models.prompt)
        left_NL, right_NL = (torch.tensor([text], device=tokens_NTD.device) for text in texts)
        embedded_NSE = model.embed(tokens_NTD.to(next(model.parameters()).dtype), left_NL, right_NL)
        answered = model.language_model.generate(
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
        yes, no = self.verifier.answers
        probability_V = answered.scores[0][0].softmax(-1)
        said = tokenizer.decode(answered.sequences[0], skip_special_tokens=True)
        return official_score(float(probability_V[yes]), float(probability_V[no]), said)
