"""Models that stand ready to be measured, with what each of their stages costs on paper."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from diffusers import SanaSprintPipeline, SCMScheduler
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CLIPImageProcessorPil, GemmaTokenizer, Qwen2Tokenizer

from forejudge.compiling import compiler_problem
from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import SamplingParams
from forejudge.generators.sana_sprint import MAX_TEXT_TOKENS, SanaConditioning, SanaSprint, SanaSprintOptions
from forejudge.profiling.sizes import PUBLISHED, SMALL
from forejudge.profiling.stages import (
    CLIP,
    GeneratorSizes,
    ModelSizes,
    StageCost,
    TextTokens,
    VerifierSizes,
    clip_cost,
    generator_costs,
    verifier_cost,
)
from forejudge.types import Phase
from forejudge.verifiers import load_verifier
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import ImageFeaturesInput, VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.question import Question

PROMPT = "a photo of a red circle left of a blue square"


@dataclass(frozen=True)
class ProfiledModels:
    """A generator, and verifiers around a language model by the kind of what they read: hidden, latent or clip."""

    generator: SanaSprint
    verifiers: Mapping[str, LanguageModelVerifier]
    prompt: str
    sampling: SamplingParams
    eager: "ProfiledModels | None" = None  # what these were before they were compiled

    @property
    def eager_or_self(self) -> "ProfiledModels":
        """What these were before they were compiled, or themselves."""
        return self.eager or self

    def compiled(self) -> Self:
        """The same models, compiled. Raises InvalidRequest where torch.compile does not work."""
        if problem := compiler_problem(self.generator.device):
            raise InvalidRequest(f"torch.compile does not work here ({problem}): leave out --compile")
        verifiers = {kind: verifier.compiled() for kind, verifier in self.verifiers.items()}
        return replace(self, generator=self.generator.compiled(), verifiers=verifiers, eager=self)

    @cached_property
    def conditioning(self) -> SanaConditioning:
        """The prompt, encoded. Raises InvalidRequest for a size that the generator cannot draw."""
        return self.generator.encode_without_padding(self.prompt, self.sampling)

    @property
    def blocks(self) -> int:
        """After so many the prefix ends: where the verifier of hidden states reads, without one after all of them."""
        prefix_lengths = [
            stage.blocks for each in self.verifiers.values() for stage in each.reads if stage.phase is Phase.PREFIX
        ]
        return prefix_lengths[0] if prefix_lengths else self.generator.architecture.num_blocks

    @cached_property
    def costs(self) -> dict[str, StageCost]:
        """Of every stage of a search."""
        num_cached, left = self.generator.encoder.split(self.prompt.lower().strip())
        return self._costs(TextTokens(num_cached, len(left), self.conditioning.text_NLD.shape[1]))

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
            width = verifier.verifier_input.width(self.generator.architecture)
            found[scoring_stage(kind)] = verifier_cost(sizes, side, width)
        return found

    def weight_bytes(self, kind: str) -> int:
        """Of all weights that a search with one of the verifiers keeps on the device."""
        verifier, parts = self.verifiers[kind], self.generator.pipeline.components.values()
        modules = [part for part in parts if isinstance(part, nn.Module)] + [verifier.model]
        if isinstance(verifier.verifier_input, ImageFeaturesInput):
            modules.append(verifier.verifier_input.tower)
        return sum(weight.nbytes for module in modules for weight in module.parameters())


def scoring_stage(kind: str) -> str:
    """The stage in which connector and language model read what a verifier of that kind sees."""
    return f"language model, {kind}"


def load_profiled_models(
    generator: str, verifiers: Iterable[str], sampling: SamplingParams, device: torch.device, dtype: torch.dtype
) -> ProfiledModels:
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
    return ProfiledModels(loaded, found, PROMPT, sampling)


# FOLDED: Models of known sizes with random weights, made where they run: no file, no hub.
#
# What they draw is noise and what they say of it chance; how long they take is what the sizes take.


RANDOM_MODELS: dict[str, ModelSizes] = {"sana-sprint-1.6b": PUBLISHED, "sana-sprint-small": SMALL}
KINDS = ("hidden", "clip", "latent")  # of verifiers
_QUESTION = "Look: <image> {prompt}"
_FILLER = "."


def random_models(
    name: str, kinds: Iterable[str], sampling: SamplingParams, device: torch.device, dtype: torch.dtype
) -> ProfiledModels:
    """One of RANDOM_MODELS, and verifiers of KINDS that read it. The weights are the same each time.

    Texts are padded until every model reads as many tokens as its sizes say. Raises InvalidRequest for another name.
    """
    if name not in RANDOM_MODELS:
        raise InvalidRequest(
            f"no sizes are known of {name!r}: with random weights there are {_join_names(RANDOM_MODELS)}"
        )
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise InvalidRequest(f"no verifier reads {unknown[0]!r}: with random weights there are {_join_names(KINDS)}")
    sizes = RANDOM_MODELS[name]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        generator = _generator(sizes.generator, name, device, dtype)
        cut = f"hidden:{sizes.num_prefix_blocks}"
        verifiers = {kind: new_verifier(sizes.verifier, cut if kind == "hidden" else kind, generator) for kind in kinds}
    return ProfiledModels(generator, verifiers, _padded_prompt(sizes.verifier), sampling)


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(names)


@contextmanager
def _default_device_and_dtype(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New weights are made there, in that precision."""
    previous_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(previous_dtype)


def _generator(sizes: GeneratorSizes, name: str, device: torch.device, dtype: torch.dtype) -> SanaSprint:
    with _default_device_and_dtype(device, dtype):
        models = sizes.new_text_encoder(), sizes.new_autoencoder(), sizes.new_transformer()
    text_encoder, autoencoder, transformer = (model.eval().requires_grad_(False) for model in models)
    pipeline = SanaSprintPipeline(_text_tokenizer(), text_encoder, autoencoder, transformer, SCMScheduler())
    instruction = _FILLER * (sizes.text_tokens - MAX_TEXT_TOKENS + 2)  # the pipeline takes two off
    options = SanaSprintOptions(complex_human_instruction=(instruction,), use_resolution_binning=False)
    return SanaSprint(pipeline, f"{name} with random weights", options)


def new_verifier(sizes: VerifierSizes, reads: str, generator: SanaSprint) -> LanguageModelVerifier:
    """A verifier of random weights, which reads of a generator what `reads` spells (see `build_verifier_input`)."""
    with _default_device_and_dtype(generator.device, generator.dtype):
        language_model = sizes.new_language_model().requires_grad_(False)
        tower = sizes.new_vision_tower() if reads == "clip" else None
    verifier_input: VerifierInput = (
        build_verifier_input(reads) if tower is None else ImageFeaturesInput(tower, _image_processor(tower))
    )
    connector = Connector(
        verifier_input.width(generator.architecture), language_model.config.hidden_size, sizes.merge_size
    )
    connector.to(generator.device, generator.dtype).requires_grad_(False)
    config = LanguageModelVerifierConfig.from_generator(
        generator, reads, question=_QUESTION, spatial_merge_size=sizes.merge_size
    )
    model = YesNoModel(connector, language_model)
    return LanguageModelVerifier(f"{reads} with random weights", config, model, _chat_tokenizer(), verifier_input)


def _padded_prompt(sizes: VerifierSizes) -> str:
    """PROMPT, with filling until a question about it has as many tokens as the sizes say."""
    left, right = Question(_QUESTION, _chat_tokenizer()).tokens_around_image(PROMPT)
    return PROMPT + _FILLER * (sizes.question_tokens - len(left) - len(right))


def _text_tokenizer() -> GemmaTokenizer:
    """Every byte is a token."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return GemmaTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def _chat_tokenizer() -> Qwen2Tokenizer:
    """Every byte is a token, and so are yes and no."""
    merges = [("y", "e"), ("ye", "s"), ("n", "o")]
    tokens = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    tokenizer = Qwen2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def _image_processor(tower: Any) -> CLIPImageProcessorPil:
    side = tower.config.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
