"""Costs of the same searches on a generator of other proportions: SANA-Sprint 1.6B in the miniature's place.

FLOPs at 1024 px with verifiers around Qwen2.5-0.5B are counted without weights: models of the published sizes run on
the meta device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from forejudge.evaluation.build_report import verifier_strategies
from forejudge.evaluation.equal_cost import CostCurve, equal_cost_table, reference_budgets
from forejudge.evaluation.report import ProjectedCosts
from forejudge.evaluation.strategies import Outcomes
from forejudge.profiling.figures import CLIP, DECODE, ENCODE, PREFIX, PREVIEW, SUFFIX
from forejudge.profiling.measure import count_flops
from forejudge.profiling.sizes import KINDS, PUBLISHED, random_models
from forejudge.search import DEFAULT_MAX_BATCH_SIZE
from forejudge.simulation.equal_mean_cost import mean_cost_rows
from forejudge.simulation.families import RuleFamily
from forejudge.simulation.recording import Recording
from forejudge.simulation.simulate import UnitCosts
from forejudge.types import Phase
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

GENERATOR = "SANA-Sprint 1.6B"
BLOCKS = 20
_IMAGE_TOKENS, _PATCHES = 32**2, 576  # tokens of a hidden state, and of CLIP
_TERA = 1e12


@dataclass(frozen=True)
class InputPoint:
    """Input of a verifier, and the number of blocks that run before it."""

    kind: Literal["hidden", "latent", "clip", "preview"]
    blocks: int


@dataclass(frozen=True)
class StageFlops:
    """Floating-point operations: of `encode` and `decode` once, of the others for one candidate.

    The language model reads one token per place of the hidden state, or per patch of CLIP. A preview is a latent
    through the tiny decoder and CLIP.
    """

    encode: int
    block: int
    decode: int
    clip: int
    preview: int
    language_model_on_hidden: int
    language_model_on_patches: int

    def stage_flops(self, reads: Mapping[str, InputPoint]) -> dict[str, int]:
        """Return FLOPs by stage, as in `EvaluationCosts.stage_flops`; the first verifier says where the prefix ends."""
        first = next(iter(reads.values()))
        return {
            "encode": self.encode,
            "prefix": first.blocks * self.block,
            "suffix": (BLOCKS - first.blocks) * self.block,
            "decode": self.decode,
            **{name: self._scoring_flops(input_point) for name, input_point in reads.items()},
        }

    def search_flops(self, input_point: InputPoint) -> tuple[int, int]:
        """Return the FLOPs of a search as (fixed, per candidate); nothing is computed twice."""
        suffix_flops = (BLOCKS - input_point.blocks) * self.block
        candidate_flops = input_point.blocks * self.block + self._scoring_flops(input_point)
        if input_point.kind == "clip":
            return self.encode, candidate_flops + self.decode
        return self.encode + suffix_flops + self.decode, candidate_flops

    def unit_costs(self, input_point: InputPoint) -> UnitCosts:
        """Return the TFLOP of a search's parts. A second step runs all blocks; images are decoded again after it."""
        fixed, candidate = (flops / _TERA for flops in self.search_flops(input_point))
        encode, decode = self.encode / _TERA, self.decode / _TERA
        second_step = BLOCKS * self.block / _TERA + decode * (input_point.kind == "clip")
        batch = {size: size * candidate for size in (1, DEFAULT_MAX_BATCH_SIZE)}
        return UnitCosts("TFLOP", batch, encode, fixed - encode, second_step)

    def _scoring_flops(self, input_point: InputPoint) -> int:
        if input_point.kind in ("clip", "preview"):
            return (self.clip if input_point.kind == "clip" else self.preview) + self.language_model_on_patches
        return self.language_model_on_hidden


@torch.no_grad()
def sana_sprint_flops() -> StageFlops:
    """Count the FLOPs; takes seconds and hardly any memory."""
    models = random_models("sana-sprint-1.6b", KINDS, None, torch.device("meta"), torch.bfloat16)
    costs = models.padded_costs
    language_model = models.verifiers["hidden"].model.language_model

    def language_model_flops(tokens: int) -> int:
        sizes = PUBLISHED.verifier
        shape = 1, tokens + sizes.question_tokens, sizes.language_model.hidden_size
        embedded_NSE = torch.zeros(shape, device="meta", dtype=torch.bfloat16)
        return count_flops(partial(language_model, inputs_embeds=embedded_NSE, logits_to_keep=1))

    return StageFlops(
        encode=costs[ENCODE].flops,
        block=(costs[PREFIX] + costs[SUFFIX]).flops // BLOCKS,
        decode=costs[DECODE].flops,
        clip=costs[CLIP].flops,
        preview=costs[PREVIEW].flops,
        language_model_on_hidden=language_model_flops(_IMAGE_TOKENS),
        language_model_on_patches=language_model_flops(_PATCHES),
    )


@dataclass(frozen=True)
class CostProjection:
    """Cost curves in TFLOP by verifier, those of the parts of searches, and the FLOPs of each stage."""

    curves: Mapping[str, CostCurve]
    unit_costs: Mapping[str, UnitCosts]
    stage_flops: Mapping[str, int]


def project_to_sana_sprint(verifiers: Mapping[str, Verifier], num_blocks: int) -> CostProjection:
    """Project the costs of verifiers around a language model; others are left out.

    `num_blocks` is that of the generator they read; a hidden state is read after the same share of blocks.
    """
    reads = {
        name: _input_point(verifier, num_blocks)
        for name, verifier in verifiers.items()
        if isinstance(verifier, LanguageModelVerifier)
    }
    flops = sana_sprint_flops()
    costs = {name: [part / _TERA for part in flops.search_flops(input_point)] for name, input_point in reads.items()}
    return CostProjection(
        {name: CostCurve.linear(*cost) for name, cost in costs.items()},
        {name: flops.unit_costs(input_point) for name, input_point in reads.items()},
        flops.stage_flops(reads),
    )


def _input_point(verifier: LanguageModelVerifier, num_blocks: int) -> InputPoint:
    (stage,) = verifier.reads
    if stage.phase is Phase.PREFIX:
        return InputPoint("hidden", round(BLOCKS * stage.blocks / num_blocks))
    if stage.phase is Phase.LATENT:
        return InputPoint("preview" if verifier.verifier_input.name == PREVIEW else "latent", BLOCKS)
    return InputPoint("clip", BLOCKS)


def projected_report(
    outcomes: Outcomes,
    projection: CostProjection,
    recording: Recording | None = None,
    families: Sequence[RuleFamily] = (),
) -> ProjectedCosts:
    """Compare the verifiers at equal projected cost, for an evaluation's report.

    With a recording, searches of `families` are compared at equal mean cost, beside fixed Best-of-N. Raises
    InvalidRequest for second steps that were not recorded.
    """
    strategies = verifier_strategies(projection.curves)
    budgets = reference_budgets(strategies[0].curve, outcomes.candidates)
    return ProjectedCosts(
        generator=GENERATOR,
        equal_cost=equal_cost_table(outcomes, strategies, budgets),
        stage_flops=dict(projection.stage_flops),
        equal_mean_cost=mean_cost_rows(recording, projection.unit_costs, families, {}) if recording else [],
    )
