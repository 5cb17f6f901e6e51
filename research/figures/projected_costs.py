"""What the same searches would cost on a generator of other proportions: SANA-Sprint 1.6B in the miniature's place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from forejudge.evaluation.equal_cost import CostCurve, CostedStrategy, equal_cost_table, reference_budgets
from forejudge.evaluation.strategies import Outcomes, best_score_strategy, verifier_scores
from forejudge.profiling.sizes import PUBLISHED
from forejudge.profiling.stages import DECODE, ENCODE, PREFIX, SUFFIX, clip_cost, generator_costs, language_model_cost
from forejudge.types import Phase
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

# FOLDED: The work of SANA-Sprint 1.6B at 1024 px and of verifiers around Qwen2.5-0.5B, counted without any weights.
#
# The architectures are the published ones; on the meta device the library's own classes count what they would do.


BLOCKS = 20
_LATENT_SIDE, _PATCHES = 32, 576


@dataclass(frozen=True)
class StageFlops:
    """Floating-point operations: `encode` and `decode` once, the others for one candidate.

    The language model reads a token for each place of the hidden state, or for each patch of CLIP.
    """

    encode: int
    block: int
    decode: int
    clip: int
    language_model_on_hidden: int
    language_model_on_patches: int

    def stage_flops(self, reads: Mapping[str, "InputPoint"]) -> dict[str, int]:
        """As `search_costs.stage_flops` names them; the first verifier says where the verdict is given."""
        first = next(iter(reads.values()))
        return {
            "encode": self.encode,
            "prefix": first.blocks * self.block,
            "suffix": (BLOCKS - first.blocks) * self.block,
            "decode": self.decode,
            **{name: self._scoring_flops(input_point) for name, input_point in reads.items()},
        }

    def search_flops(self, input_point: "InputPoint") -> tuple[int, int]:
        """(fixed, for each candidate) of a search; nothing is drawn twice."""
        suffix_flops = (BLOCKS - input_point.blocks) * self.block
        candidate_flops = input_point.blocks * self.block + self._scoring_flops(input_point)
        if input_point.kind == "clip":
            return self.encode, candidate_flops + self.decode
        return self.encode + suffix_flops + self.decode, candidate_flops

    def _scoring_flops(self, input_point: "InputPoint") -> int:
        if input_point.kind == "clip":
            return self.clip + self.language_model_on_patches
        return self.language_model_on_hidden


@dataclass(frozen=True)
class InputPoint:
    """What a verifier reads, and after how many of the blocks it stands there."""

    kind: Literal["hidden", "latent", "clip"]
    blocks: int


def sana_sprint_flops() -> StageFlops:
    """Count it; takes seconds and no memory to speak of."""
    generator, sizes = PUBLISHED.generator, PUBLISHED.verifier
    costs = generator_costs(generator, BLOCKS, _LATENT_SIDE, generator.padded_text)
    return StageFlops(
        encode=costs[ENCODE].flops,
        block=(costs[PREFIX] + costs[SUFFIX]).flops // BLOCKS,
        decode=costs[DECODE].flops,
        clip=clip_cost(sizes).flops,
        language_model_on_hidden=language_model_cost(sizes, _LATENT_SIDE**2).flops,
        language_model_on_patches=language_model_cost(sizes, _PATCHES).flops,
    )


_TERA = 1e12


@dataclass(frozen=True)
class ProjectedCosts:
    """Curves in TFLOP and the FLOPs of each stage, by verifier."""

    curves: Mapping[str, CostCurve]
    stage_flops: Mapping[str, int]


def project_to_sana_sprint(verifiers: Mapping[str, Verifier], num_blocks: int) -> ProjectedCosts:
    """Of verifiers around a language model; a hidden state is read after the same share of the blocks.

    `num_blocks` are those of the generator that they read.
    """
    reads = {
        name: _input_point(verifier, num_blocks)
        for name, verifier in verifiers.items()
        if isinstance(verifier, LanguageModelVerifier)
    }
    flops = sana_sprint_flops()
    costs = {name: [part / _TERA for part in flops.search_flops(input_point)] for name, input_point in reads.items()}
    return ProjectedCosts({name: CostCurve.linear(*cost) for name, cost in costs.items()}, flops.stage_flops(reads))


def _input_point(verifier: Verifier, num_blocks: int) -> InputPoint:
    (stage,) = verifier.reads
    if stage.phase is Phase.PREFIX:
        return InputPoint("hidden", round(BLOCKS * stage.blocks / num_blocks))
    return InputPoint("latent" if stage.phase is Phase.LATENT else "clip", BLOCKS)


def equal_work(outcomes: Outcomes, projected: ProjectedCosts) -> dict[str, Any]:
    """Best-of-N at equal projected work, and the FLOPs of each stage, for an evaluation's figures."""
    strategies = [
        CostedStrategy(name, best_score_strategy(verifier_scores(name)), curve)
        for name, curve in projected.curves.items()
    ]
    table = equal_cost_table(outcomes, strategies, reference_budgets(strategies[0].curve, outcomes.candidates))
    return {"equal_projected_cost": table, "projected_stage_flops": dict(projected.stage_flops)}
