"""What the same searches would cost on a generator of other proportions: SANA-Sprint 1.6B in the miniature's place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from forejudge.evaluation.equal_cost import Contender, CostCurve, budgets_of, equal_cost_table
from forejudge.evaluation.strategies import Outcomes, choosing_by, verifier_scores
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
class StageWork:
    """Floating-point operations: `encode` and `decode` once, the others for one candidate.

    The language model reads a token for each place of the hidden state, or for each patch of CLIP.
    """

    encode: int
    block: int
    decode: int
    clip: int
    language_model_on_hidden: int
    language_model_on_patches: int

    def of_stages(self, reads: Mapping[str, "Read"]) -> dict[str, int]:
        """As `search_costs.stage_flops` names them; the first verifier says where the verdict is given."""
        first = next(iter(reads.values()))
        return {
            "encode": self.encode,
            "to the verdict": first.blocks * self.block,
            "to the latent": (BLOCKS - first.blocks) * self.block,
            "decode": self.decode,
            **{name: self._judging(read) for name, read in reads.items()},
        }

    def of_search(self, read: "Read") -> tuple[int, int]:
        """(fixed, for each candidate) of a search; nothing is drawn twice."""
        rest = (BLOCKS - read.blocks) * self.block
        each = read.blocks * self.block + self._judging(read)
        if read.kind == "clip":
            return self.encode, each + self.decode
        return self.encode + rest + self.decode, each

    def _judging(self, read: "Read") -> int:
        if read.kind == "clip":
            return self.clip + self.language_model_on_patches
        return self.language_model_on_hidden


@dataclass(frozen=True)
class Read:
    """What a verifier reads, and after how many of the blocks it stands there."""

    kind: Literal["hidden", "latent", "clip"]
    blocks: int


def sana_sprint_work() -> StageWork:
    """Count it; takes seconds and no memory to speak of."""
    generator, sizes = PUBLISHED.generator, PUBLISHED.verifier
    drawing = generator_costs(generator, BLOCKS, _LATENT_SIDE, generator.padded_text)
    return StageWork(
        encode=drawing[ENCODE].flops,
        block=(drawing[PREFIX] + drawing[SUFFIX]).flops // BLOCKS,
        decode=drawing[DECODE].flops,
        clip=clip_cost(sizes).flops,
        language_model_on_hidden=language_model_cost(sizes, _LATENT_SIDE**2).flops,
        language_model_on_patches=language_model_cost(sizes, _PATCHES).flops,
    )


_TERA = 1e12


@dataclass(frozen=True)
class Elsewhere:
    """Curves in TFLOP and the FLOPs of each stage, by verifier."""

    curves: Mapping[str, CostCurve]
    stage_flops: Mapping[str, int]


def on_sana_sprint(verifiers: Mapping[str, Verifier], num_blocks: int) -> Elsewhere:
    """Of verifiers around a language model; a hidden state is read after the same share of the blocks.

    `num_blocks` are those of the generator that they read.
    """
    reads = {
        name: _read(verifier, num_blocks)
        for name, verifier in verifiers.items()
        if isinstance(verifier, LanguageModelVerifier)
    }
    work = sana_sprint_work()
    costs = {name: [part / _TERA for part in work.of_search(read)] for name, read in reads.items()}
    return Elsewhere({name: CostCurve.linear(*cost) for name, cost in costs.items()}, work.of_stages(reads))


def _read(verifier: Verifier, num_blocks: int) -> Read:
    (stage,) = verifier.reads
    if stage.phase is Phase.PREFIX:
        return Read("hidden", round(BLOCKS * stage.blocks / num_blocks))
    return Read("latent" if stage.phase is Phase.LATENT else "clip", BLOCKS)


def equal_work(outcomes: Outcomes, projected: Elsewhere) -> dict[str, Any]:
    """Best-of-N at equal projected work, and the FLOPs of each stage, for an evaluation's figures."""
    strategies = [
        Contender(name, choosing_by(verifier_scores(name)), curve) for name, curve in projected.curves.items()
    ]
    table = equal_cost_table(outcomes, strategies, budgets_of(strategies[0].curve, outcomes.candidates))
    return {"equal_work": table, "stage_flops_elsewhere": dict(projected.stage_flops)}
