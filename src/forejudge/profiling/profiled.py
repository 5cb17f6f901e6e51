"""Models that stand ready to be measured, with what each of their stages costs on paper."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import nn

from forejudge.compiling import compiler_problem
from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import Sampling
from forejudge.generators.sana_sprint import SanaConditioning, SanaSprint
from forejudge.profiling.model_sizes import GeneratorSizes, TextTokens, VerifierSizes
from forejudge.profiling.stage_costs import CLIP, StageCost, clip_cost, generator_costs, verifier_cost
from forejudge.types import Phase
from forejudge.verifiers import load_verifier
from forejudge.verifiers.clip import ClipReading
from forejudge.verifiers.language_model import LanguageModelVerifier

PROMPT = "a photo of a red circle left of a blue square"


@dataclass(frozen=True)
class Profiled:
    """A generator, and verifiers around a language model by the kind of what they read: hidden, latent or clip."""

    generator: SanaSprint
    verifiers: Mapping[str, LanguageModelVerifier]
    prompt: str
    sampling: Sampling
    plain: "Profiled | None" = None  # what these were before they were compiled

    @property
    def uncompiled(self) -> "Profiled":
        """What these were before they were compiled, or themselves."""
        return self.plain or self

    def compiled(self) -> Self:
        """The same models, compiled. Raises InvalidRequest where torch.compile does not work."""
        if problem := compiler_problem(self.generator.device):
            raise InvalidRequest(f"torch.compile does not work here ({problem}): leave out --compile")
        verifiers = {kind: verifier.compiled() for kind, verifier in self.verifiers.items()}
        return replace(self, generator=self.generator.compiled(), verifiers=verifiers, plain=self)

    @cached_property
    def conditioning(self) -> SanaConditioning:
        """The prompt, encoded. Raises InvalidRequest for a size that the generator cannot draw."""
        return self.generator.encode_without_padding(self.prompt, self.sampling)

    @property
    def blocks(self) -> int:
        """After so many the prefix ends: where the verifier of hidden states reads, without one after all of them."""
        read = [stage.blocks for each in self.verifiers.values() for stage in each.reads if stage.phase is Phase.PREFIX]
        return read[0] if read else self.generator.architecture.num_blocks

    @cached_property
    def costs(self) -> dict[str, StageCost]:
        """Of every stage of a search."""
        known, left = self.generator.encoder.split(self.prompt.lower().strip())
        return self._costs(TextTokens(known, len(left), self.conditioning.text_NLD.shape[1]))

    @cached_property
    def padded_costs(self) -> dict[str, StageCost]:
        """The same with all that the pipeline's own call reads: the instruction again for each prompt, and padding."""
        return self._costs(GeneratorSizes.of(self.generator).padded_text)

    def _costs(self, text: TextTokens) -> dict[str, StageCost]:
        side = self.conditioning.latent_shape[-1]
        found = generator_costs(GeneratorSizes.of(self.generator), self.blocks, side, text)
        for kind, verifier in self.verifiers.items():
            sizes = VerifierSizes.of(verifier, self.prompt)
            if sizes.vision_tower is not None:
                found[CLIP] = clip_cost(sizes)
            width = verifier.reading.width(self.generator.architecture)
            found[judging_stage(kind)] = verifier_cost(sizes, side, width)
        return found

    def weight_bytes(self, kind: str) -> int:
        """Of all weights that a search with one of the verifiers keeps on the device."""
        verifier, parts = self.verifiers[kind], self.generator.pipeline.components.values()
        modules = [part for part in parts if isinstance(part, nn.Module)] + [verifier.model]
        if isinstance(verifier.reading, ClipReading):
            modules.append(verifier.reading.tower)
        return sum(weight.nbytes for module in modules for weight in module.parameters())


def judging_stage(kind: str) -> str:
    """The stage in which connector and language model read what a verifier of that kind sees."""
    return f"language model, {kind}"


def load_profiled(
    generator: str, verifiers: Iterable[str], sampling: Sampling, device: torch.device, dtype: torch.dtype
) -> Profiled:
    """Load models as `load_generator` and `load_verifier` name them.

    Raises InvalidRequest for what cannot be counted, or two verifiers of one kind, and what loading raises.
    """
    loaded = load_generator(generator, device, dtype)
    if not isinstance(loaded, SanaSprint):
        raise InvalidRequest(f"{generator} is no SANA-Sprint: the work of its stages cannot be counted yet")
    found: dict[str, LanguageModelVerifier] = {}
    for name in verifiers:
        verifier = load_verifier(name, device, dtype)
        if not isinstance(verifier, LanguageModelVerifier):
            raise InvalidRequest(f"verifier {name} has no language model: its work cannot be counted")
        kind = verifier.config.reads.partition(":")[0]
        if kind in found:
            raise InvalidRequest(f"verifiers {found[kind].name} and {name} both read {kind}: leave one out")
        verifier.check(loaded)
        found[kind] = verifier
    return Profiled(loaded, found, PROMPT, sampling)
