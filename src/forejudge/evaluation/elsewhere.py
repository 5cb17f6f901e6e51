"""What the same searches would cost on a generator of other proportions: SANA-Sprint 1.6B in the miniature's place."""

from collections.abc import Mapping
from dataclasses import dataclass

from forejudge.evaluation.equal_cost import CostCurve
from forejudge.profiling.sana_sprint_work import BLOCKS, Read, sana_sprint_work
from forejudge.types import Phase
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

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
