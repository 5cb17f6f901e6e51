"""What each stage costs on paper, counted on the meta device: operations, and the weights that it must read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from forejudge.generators.sana_sprint import MAX_TEXT_TOKENS, SanaInput, SanaSplit, SanaSprint
from forejudge.generators.text_encoding import TextCache
from forejudge.profiling.measure import count_flops
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import ImageFeaturesInput
from forejudge.verifiers.language_model import LanguageModelVerifier

# FOLDED: The work of models that are not here: their own classes count, on the meta device, what they would do.


@dataclass(frozen=True)
class TransformerFlops:
    """Floating-point operations of one forward pass: before the first block, in each of them, after the last one."""

    before: int
    blocks: tuple[int, ...]
    after: int

    @property
    def total(self) -> int:
        """From latents to the output."""
        return self.prefix_flops(len(self.blocks)) + self.after

    def prefix_flops(self, blocks: int) -> int:
        """To the hidden state after so many blocks."""
        return self.before + sum(self.blocks[:blocks])


@torch.no_grad()
def transformer_flops(split: Any, transformer: nn.Module, inputs: Any, num_blocks: int) -> TransformerFlops:
    """`split` is the module that cuts this transformer, with prefix, run_blocks and suffix."""
    state = split.prefix(transformer, inputs, 0)
    return TransformerFlops(
        before=count_flops(partial(split.prefix, transformer, inputs, 0)),
        blocks=tuple(
            count_flops(partial(split.run_blocks, transformer, state, block, block + 1)) for block in range(num_blocks)
        ),
        after=count_flops(partial(split.suffix, transformer, state, num_blocks)),
    )


def text_flops(model: nn.Module, tokens: int, num_cached: int = 0) -> int:
    """Of a text model that reads so many tokens once, after others that a causal one has read before."""
    if num_cached:
        before = TextCache.from_tokens(model, [0] * num_cached, torch.device("meta"))
        return count_flops(partial(before.extend_states, model, num_cached, [0] * tokens))
    ids_NL = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    return count_flops(lambda: model(input_ids=ids_NL))


# FOLDED: What a generator and its verifiers are made of: configurations from which the libraries' classes make each part.


@dataclass(frozen=True)
class TextTokens:
    """Of a prompt: how many the text encoder knows already, how many it reads, and how many the transformer takes."""

    num_cached: int
    num_encoded: int
    num_conditioning: int


@dataclass(frozen=True)
class GeneratorSizes:
    """SANA-Sprint's; its own call has the text encoder read `text_tokens`: instruction and prompt, padding included."""

    transformer: Mapping[str, Any]
    text_encoder: PreTrainedConfig
    autoencoder: Mapping[str, Any]
    text_tokens: int

    @classmethod
    def of(cls, generator: SanaSprint) -> Self:
        """Those of a generator at hand."""
        return cls(
            generator.transformer.config,
            generator.pipeline.text_encoder.config,
            generator.autoencoder.config,
            generator.num_instruction_tokens + MAX_TEXT_TOKENS,
        )

    @property
    def padded_text(self) -> TextTokens:
        """What its own call does with any prompt."""
        return TextTokens(0, self.text_tokens, MAX_TEXT_TOKENS)

    def new_transformer(self) -> SanaTransformer2DModel:
        """Untrained, as the others, on torch's default device."""
        return SanaTransformer2DModel.from_config(dict(self.transformer))

    def new_text_encoder(self, attention: str | None = None) -> Any:
        """`attention` is an implementation of transformers, by default its choice."""
        return AutoModel.from_config(self.text_encoder, attn_implementation=attention)

    def new_autoencoder(self) -> AutoencoderDC:
        """Encoder and decoder."""
        return AutoencoderDC.from_config(dict(self.autoencoder))


@dataclass(frozen=True)
class VerifierSizes:
    """A verifier's around a language model; `question_tokens` stand around the picture in what that reads.

    `vision_tower` is there for one that reads pictures; for `merge_size` see `Connector`.
    """

    language_model: PreTrainedConfig
    question_tokens: int
    vision_tower: CLIPVisionConfig | None
    merge_size: int = 1

    @classmethod
    def of(cls, verifier: LanguageModelVerifier, prompt: str) -> Self:
        """Those of a verifier at hand, asked about a prompt."""
        left, right = verifier.question.tokens_around_image(prompt)
        verifier_input = verifier.verifier_input
        tower = verifier_input.tower.config if isinstance(verifier_input, ImageFeaturesInput) else None
        merge_size = verifier.config.spatial_merge_size
        return cls(verifier.model.language_model.config, len(left) + len(right), tower, merge_size)

    def new_language_model(self, attention: str | None = None) -> Any:
        """Untrained, as the tower, on torch's default device; for `attention` see `GeneratorSizes.new_text_encoder`."""
        return AutoModelForCausalLM.from_config(self.language_model, attn_implementation=attention)

    def new_vision_tower(self) -> CLIPVisionModel:
        """Of a verifier that has one."""
        assert self.vision_tower is not None, "only a verifier that reads pictures has a tower"
        return CLIPVisionModel(self.vision_tower)


@dataclass(frozen=True)
class ModelSizes:
    """A generator and verifiers that read it; a hidden state is read after `num_prefix_blocks` blocks."""

    generator: GeneratorSizes
    verifier: VerifierSizes
    num_prefix_blocks: int


ENCODE, PREFIX, SUFFIX, DECODE, CLIP = "encode", "prefix", "suffix", "decode", "clip"
_EAGER = "eager"  # the attention that shows all its products


@dataclass(frozen=True)
class StageCost:
    """Floating-point operations for one candidate, and how many weights are read once for all of a batch."""

    flops: int
    weights: int

    def __add__(self, other: "StageCost") -> "StageCost":
        return StageCost(self.flops + other.flops, self.weights + other.weights)


@torch.no_grad()
def generator_costs(sizes: GeneratorSizes, blocks: int, side: int, text: TextTokens) -> dict[str, StageCost]:
    """Of the prompt, of the first `blocks` blocks, of the rest to the latent, and of the picture; in this order.

    `side` is that of the latent grid.
    """
    with torch.device("meta"):
        text_encoder, autoencoder = sizes.new_text_encoder(_EAGER), sizes.new_autoencoder()
        transformer = sizes.new_transformer()
        config = transformer.config
        latents_NCHW = torch.zeros(1, config.in_channels, side, side)
        text_NLD = torch.zeros(1, text.num_conditioning, config.caption_channels)
        inputs = SanaInput(latents_NCHW, text_NLD, None, torch.zeros(1), torch.zeros(1))
        forward_flops = transformer_flops(SanaSplit(), transformer, inputs, config.num_layers)
        decode_flops = count_flops(partial(autoencoder.decode, latents_NCHW))
    first, last = transformer.transformer_blocks[:blocks], transformer.transformer_blocks[blocks:]
    output_layers = (transformer.norm_out, transformer.proj_out)
    before = (
        _count_weights(transformer) - _count_weights(transformer.transformer_blocks) - _count_weights(*output_layers)
    )
    return {
        ENCODE: StageCost(text_flops(text_encoder, text.num_encoded, text.num_cached), _count_weights(text_encoder)),
        PREFIX: StageCost(forward_flops.prefix_flops(blocks), before + _count_weights(first)),
        SUFFIX: StageCost(
            forward_flops.total - forward_flops.prefix_flops(blocks), _count_weights(last, *output_layers)
        ),
        DECODE: StageCost(decode_flops, _count_weights(autoencoder.decoder)),
    }


@torch.no_grad()
def verifier_cost(sizes: VerifierSizes, side: int, width: int) -> StageCost:
    """Of connector and language model.

    They read a token of so many channels for each place of a latent grid of that side, or for each patch of a tower.
    """
    tower = sizes.vision_tower
    tokens = side**2 if tower is None else (tower.image_size // tower.patch_size) ** 2
    with torch.device("meta"):
        connector = Connector(width, sizes.language_model.hidden_size, sizes.merge_size)
        connector_flops = count_flops(partial(connector, torch.zeros(1, tokens, width)))
    return StageCost(connector_flops, _count_weights(connector)) + language_model_cost(sizes, tokens)


@torch.no_grad()
def language_model_cost(sizes: VerifierSizes, tokens: int) -> StageCost:
    """Of reading so many tokens of a picture with the question around them, and of one next token."""
    num_encoded = tokens // sizes.merge_size**2 + sizes.question_tokens
    with torch.device("meta"):
        model = sizes.new_language_model(_EAGER)
        embedded_NSE = torch.zeros(1, num_encoded, sizes.language_model.hidden_size)
        flops = count_flops(partial(model, inputs_embeds=embedded_NSE, logits_to_keep=1))
    return StageCost(flops, _count_weights(model))


@torch.no_grad()
def clip_cost(sizes: VerifierSizes) -> StageCost:
    """Of looking at a picture."""
    with torch.device("meta"):
        tower = sizes.new_vision_tower()
        pixels_N3HW = torch.zeros(1, 3, tower.config.image_size, tower.config.image_size)
        return StageCost(count_flops(partial(tower, pixels_N3HW)), _count_weights(tower))


def _count_weights(*modules: nn.Module) -> int:
    """Elements that are read whole. Of an embedding a few rows are, unless it is the output layer as well."""
    parts = [part for module in modules for part in module.modules() if not isinstance(part, nn.Embedding)]
    own = {id(weight): weight.numel() for part in parts for weight in part.parameters(recurse=False)}
    return sum(own.values())
