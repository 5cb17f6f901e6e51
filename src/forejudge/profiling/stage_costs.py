"""What each stage costs on paper, counted on the meta device: operations, and the weights that it must read."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from forejudge.generators import sana_split
from forejudge.generators.sana_split import SanaInput
from forejudge.profiling.flops import count_flops
from forejudge.profiling.meta_work import text_flops, transformer_work
from forejudge.profiling.model_sizes import GeneratorSizes, TextTokens, VerifierSizes
from forejudge.verifiers.connector import Connector

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
        text_NLD = torch.zeros(1, text.taken, config.caption_channels)
        inputs = SanaInput(latents_NCHW, text_NLD, None, torch.zeros(1), torch.zeros(1))
        work = transformer_work(sana_split, transformer, inputs, config.num_layers)
        decoding = count_flops(partial(autoencoder.decode, latents_NCHW))
    first, last = transformer.transformer_blocks[:blocks], transformer.transformer_blocks[blocks:]
    ends = (transformer.norm_out, transformer.proj_out)
    before = _weights(transformer) - _weights(transformer.transformer_blocks) - _weights(*ends)
    return {
        ENCODE: StageCost(text_flops(text_encoder, text.read, text.known), _weights(text_encoder)),
        PREFIX: StageCost(work.of_prefix(blocks), before + _weights(first)),
        SUFFIX: StageCost(work.whole - work.of_prefix(blocks), _weights(last, *ends)),
        DECODE: StageCost(decoding, _weights(autoencoder.decoder)),
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
        connecting = count_flops(partial(connector, torch.zeros(1, tokens, width)))
    return StageCost(connecting, _weights(connector)) + language_model_cost(sizes, tokens)


@torch.no_grad()
def language_model_cost(sizes: VerifierSizes, tokens: int) -> StageCost:
    """Of reading so many tokens of a picture with the question around them, and of one next token."""
    read = tokens // sizes.merge_size**2 + sizes.question_tokens
    with torch.device("meta"):
        model = sizes.new_language_model(_EAGER)
        embedded_NSE = torch.zeros(1, read, sizes.language_model.hidden_size)
        flops = count_flops(partial(model, inputs_embeds=embedded_NSE, logits_to_keep=1))
    return StageCost(flops, _weights(model))


@torch.no_grad()
def clip_cost(sizes: VerifierSizes) -> StageCost:
    """Of looking at a picture."""
    with torch.device("meta"):
        tower = sizes.new_vision_tower()
        pixels_N3HW = torch.zeros(1, 3, tower.config.image_size, tower.config.image_size)
        return StageCost(count_flops(partial(tower, pixels_N3HW)), _weights(tower))


def _weights(*modules: nn.Module) -> int:
    """Elements that are read whole. Of an embedding a few rows are, unless it is the output layer as well."""
    parts = [part for module in modules for part in module.modules() if not isinstance(part, nn.Embedding)]
    own = {id(weight): weight.numel() for part in parts for weight in part.parameters(recurse=False)}
    return sum(own.values())
