"""Controls beside a verifier: what it says when it reads the wrong candidate's states, or none."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator
from forejudge.types import Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier


class _Control(Verifier):
    def __init__(self, verifier: LanguageModelVerifier) -> None:
        self.name, self.verifier = verifier.name, verifier
        self.reads, self.calibrated, self.digest = verifier.reads, verifier.calibrated, verifier.digest

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        return self.verifier.check(generator)


class ShuffledStates(_Control):
    """Each candidate is judged by another one's state, at random: choosing by it is choosing blindly."""

    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`."""
        source = torch.Generator().manual_seed(candidates.seeds[0])
        rows = torch.randperm(len(candidates), generator=source).tolist()
        views = {stage: candidates[rows].views[stage] for stage in self.reads}
        return self.verifier.judge(prompt, replace(candidates, views=views))


class ZeroedStates(_Control):
    """Every state is the mean of all, zero once it is standardised: what the prompt alone says."""

    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`. For readings of a hidden state."""
        (stage,) = self.reads
        views = {stage: self.verifier.model.connector.mean_states(candidates.tensor(stage))}
        return self.verifier.judge(prompt, replace(candidates, views=views))


def with_controls(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """And beside the first one what it says of shuffled and of zeroed states.

    Raises InvalidRequest where it does not read hidden states.
    """
    first = next(iter(verifiers.values()))
    if not isinstance(first, LanguageModelVerifier) or not first.config.reads.startswith("hidden:"):
        raise InvalidRequest(f"controls are for verifiers of hidden states, which {first.name} is not")
    return {**verifiers, "states shuffled": ShuffledStates(first), "states zeroed": ZeroedStates(first)}
