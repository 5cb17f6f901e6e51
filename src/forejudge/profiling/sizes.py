"""Random weights at published sizes: SANA-Sprint with the paper's verifiers, in full and scaled down for a CPU.

Models are made on their device, so a profile needs no file and no download. On the meta device they have no weights at
all; costs are counted there without the memory and the time that the models would take.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderTiny, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from PIL import Image
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    GemmaTokenizer,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2Tokenizer,
)

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator
from forejudge.generators.sana_sprint import MAX_TEXT_TOKENS, SanaSprint, SanaSprintOptions
from forejudge.profiling.models import PROMPT, ProfiledModels, with_resolution
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import ImageFeaturesInput, PreviewInput, VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.question import Question

KINDS = ("hidden", "clip", "latent", "preview")  # of verifier inputs
_QUESTION = "Look: <image> {prompt}"
_FILLER = "."


@dataclass(frozen=True)
class GeneratorSizes:
    """Configurations of SANA-Sprint's parts; its own call pads instruction and prompt to `text_tokens` tokens."""

    transformer: Mapping[str, Any]
    text_encoder: PreTrainedConfig
    autoencoder: Mapping[str, Any]
    text_tokens: int


@dataclass(frozen=True)
class VerifierSizes:
    """Configurations of a verifier's parts; the language model reads `question_tokens` around the image's tokens.

    `vision_tower` belongs to a verifier that reads images or previews, `tiny_decoder` to one that reads previews.
    """

    language_model: PreTrainedConfig
    question_tokens: int
    vision_tower: CLIPVisionConfig
    tiny_decoder: Mapping[str, Any]


@dataclass(frozen=True)
class ModelSizes:
    """A generator and the verifiers that read it; the hidden state is read after `num_prefix_blocks` blocks."""

    generator: GeneratorSizes
    verifier: VerifierSizes
    num_prefix_blocks: int


def random_models(
    name: str, kinds: Iterable[str], resolution: int | None, device: torch.device, dtype: torch.dtype
) -> ProfiledModels:
    """Make one of RANDOM_MODELS, and verifiers of KINDS that read it, with the same weights each time.

    Texts are padded until every model reads as many tokens as its sizes say. `resolution` is the side of the images in
    pixels (default: the generator's own). Raises InvalidRequest for an unknown name or kind.
    """
    if name not in RANDOM_MODELS:
        known = ", ".join(RANDOM_MODELS)
        raise InvalidRequest(f"no sizes are known for generator {name!r}: with --random-weights use one of {known}")
    if unknown := sorted(set(kinds) - set(KINDS)):
        known = ", ".join(KINDS)
        raise InvalidRequest(f"no verifier reads {unknown[0]!r}: with --random-weights use one of {known}")
    sizes = RANDOM_MODELS[name]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        generator = _new_generator(sizes.generator, name, device, dtype)
        cut = f"hidden:{sizes.num_prefix_blocks}"
        verifiers = {kind: new_verifier(sizes.verifier, cut if kind == "hidden" else kind, generator) for kind in kinds}
    sampling = with_resolution(generator.defaults, resolution)
    return ProfiledModels(generator, verifiers, _padded_prompt(sizes.verifier), sampling)


def _new_generator(sizes: GeneratorSizes, name: str, device: torch.device, dtype: torch.dtype) -> SanaSprint:
    with _default_device_and_dtype(device, dtype):
        text_encoder: Any = AutoModel.from_config(sizes.text_encoder, attn_implementation=_attention(device))
        autoencoder = AutoencoderDC.from_config(dict(sizes.autoencoder))
        transformer = SanaTransformer2DModel.from_config(dict(sizes.transformer))
    models = [model.eval().requires_grad_(False) for model in (text_encoder, autoencoder, transformer)]
    pipeline = SanaSprintPipeline(_text_tokenizer(), *models, SCMScheduler())
    if device.type == "meta":
        pipeline.image_processor = _BlankImages()
    instruction = _FILLER * (sizes.text_tokens - MAX_TEXT_TOKENS + 2)  # the pipeline subtracts two
    options = SanaSprintOptions(complex_human_instruction=(instruction,), use_resolution_binning=False)
    return SanaSprint(pipeline, f"{name} with random weights", options)


def new_verifier(sizes: VerifierSizes, reads: str, generator: Generator[Any]) -> LanguageModelVerifier:
    """Make a verifier of any generator with random weights; `reads` is as in `build_verifier_input`."""
    device = generator.device
    with _default_device_and_dtype(device, generator.dtype):
        language_model: Any = AutoModelForCausalLM.from_config(
            sizes.language_model, attn_implementation=_attention(device)
        )
        verifier_input = _new_input(sizes, reads)
    language_model.requires_grad_(False)
    if device.type == "meta":
        language_model.register_forward_pre_hook(_with_attention_mask, with_kwargs=True)
    connector = Connector(verifier_input.width(generator.architecture), language_model.config.hidden_size)
    connector.to(device, generator.dtype).requires_grad_(False)
    config = LanguageModelVerifierConfig.from_generator(generator, reads, question=_QUESTION)
    model = YesNoModel(connector, language_model)
    return LanguageModelVerifier(f"{reads} with random weights", config, model, _chat_tokenizer(), verifier_input)


def _new_input(sizes: VerifierSizes, reads: str) -> VerifierInput:
    if reads not in ("clip", "preview"):
        return build_verifier_input(reads)
    tower = CLIPVisionModel(sizes.vision_tower)
    image_features = ImageFeaturesInput(tower, _image_processor(tower))
    if reads == "clip":
        return image_features
    return PreviewInput(image_features, AutoencoderTiny.from_config(dict(sizes.tiny_decoder)))


@contextmanager
def _default_device_and_dtype(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Make new weights on a device, in a dtype."""
    previous_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(previous_dtype)


def _attention(device: torch.device) -> str | None:
    """Name the attention of transformers' models: on meta one that does not look at the values of its mask."""
    return "eager" if device.type == "meta" else None


def _with_attention_mask(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Say that all tokens count: without a mask transformers looks for packed texts by the values of positions."""
    mask_NS = torch.ones(kwargs["inputs_embeds"].shape[:2], device="meta")
    return args, {**kwargs, "attention_mask": mask_NS}


class _BlankImages:
    """An image processor for the meta device, whose tensors have no values to show."""

    def postprocess(self, images_NCHW: Tensor, output_type: str) -> list[Image.Image]:
        """Return a black image for each row."""
        height, width = images_NCHW.shape[-2:]
        return [Image.new("RGB", (width, height)) for _ in images_NCHW]


def _padded_prompt(sizes: VerifierSizes) -> str:
    """Pad PROMPT until a question about it has as many tokens as the sizes say."""
    left, right = Question(_QUESTION, _chat_tokenizer()).tokens_around_image(PROMPT)
    return PROMPT + _FILLER * (sizes.question_tokens - len(left) - len(right))


def _text_tokenizer() -> GemmaTokenizer:
    """Make a tokenizer with one token for each byte."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return GemmaTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


def _chat_tokenizer() -> Qwen2Tokenizer:
    """Make a tokenizer with one token for each byte, for yes and for no."""
    merges = [("y", "e"), ("ye", "s"), ("n", "o")]
    tokens = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    tokenizer = Qwen2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def _image_processor(tower: Any) -> CLIPImageProcessorPil:
    side = tower.config.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


_TEXT_TOKENS = 520  # SANA's instruction is 222 of Gemma's tokens, of which two go to the 300 of a prompt
_QUESTION_TOKENS = 95  # the published question in Qwen2.5's chat template, about a prompt of GenEval's
_TRANSFORMER = {"guidance_embeds": True, "guidance_embeds_scale": 0.1, "qk_norm": "rms_norm_across_heads"}


def _autoencoder(*channels: int) -> dict[str, Any]:
    """Configure a DC-AE f32 with these channels, from the side of the pixels to that of the latents."""
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((), (), (), (5,), (5,), (5,))
    return {
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": channels,
        "decoder_block_out_channels": channels,
        "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales,
        "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
        "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
        "upsample_block_type": "interpolate",
        "downsample_block_type": "Conv",
        "scaling_factor": 0.41407,
    }


def _tiny_decoder(width: int) -> dict[str, Any]:
    """Configure the decoder of an AutoencoderTiny for a DC-AE f32: TAESD's, with two more stages for twice 2 x."""
    stages = 6
    return {
        "latent_channels": 32,
        "decoder_block_out_channels": (width,) * stages,
        "num_decoder_blocks": (3,) * (stages - 1) + (1,),
        "encoder_block_out_channels": (width,),  # never runs
        "num_encoder_blocks": (0,),
    }


PUBLISHED = ModelSizes(
    GeneratorSizes(
        transformer=_TRANSFORMER,  # the class's defaults are the other sizes
        text_encoder=Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        ),
        autoencoder=_autoencoder(128, 256, 512, 512, 1024, 1024),
        text_tokens=_TEXT_TOKENS,
    ),
    VerifierSizes(
        language_model=Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        question_tokens=_QUESTION_TOKENS,
        vision_tower=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        tiny_decoder=_tiny_decoder(64),
    ),
    num_prefix_blocks=8,
)
"""SANA-Sprint 1.6B at 1024 px with Gemma-2-2b and DC-AE f32c32; Qwen2.5-0.5B, CLIP ViT-L/14 at 336 px, tiny decoder.

TAESANA, the one published for these latents, is wider in its first two stages, which adds 4 % to the FLOPs.
"""

SMALL = ModelSizes(
    GeneratorSizes(
        transformer={
            **_TRANSFORMER,
            "num_layers": 10,
            "num_attention_heads": 10,
            "num_cross_attention_heads": 5,
            "cross_attention_head_dim": 64,
            "cross_attention_dim": 320,
            "caption_channels": 192,
            "sample_size": 8,
        },
        text_encoder=Gemma2Config(
            vocab_size=512,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=64,
        ),
        autoencoder=_autoencoder(16, 32, 64, 64, 128, 128),
        text_tokens=_TEXT_TOKENS,
    ),
    VerifierSizes(
        language_model=Qwen2Config(
            vocab_size=512,
            hidden_size=160,
            intermediate_size=864,
            num_hidden_layers=6,
            num_attention_heads=5,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        ),
        question_tokens=_QUESTION_TOKENS,
        vision_tower=CLIPVisionConfig(
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=12,
            num_attention_heads=6,
            image_size=84,
            patch_size=14,
        ),
        tiny_decoder=_tiny_decoder(8),
    ),
    num_prefix_blocks=4,
)
"""About a thousandth of the published FLOPs at 256 px, in similar shares: a Best-of-8 takes seconds on a CPU."""

RANDOM_MODELS: dict[str, ModelSizes] = {"sana-sprint-1.6b": PUBLISHED, "sana-sprint-small": SMALL}
