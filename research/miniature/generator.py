"""Generator of the miniature: a SANA-Sprint of the library's own classes, trained to generate in one step.

At the last time (pure noise) the scene is coupled with the noise (`one_step`). At earlier times the image is mixed with
independent noise, because SCMScheduler adds fresh noise before every further step. A generator is trained shallow, then
deepened and trained on; both resume. Studies build further ones on the latents of a finished miniature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from forejudge.checkpoint import load_weights, quiet_libraries
from forejudge.digests import write_checksums
from forejudge.files import write_text
from forejudge.generators.base import OPTIONS_FILE, GeneratorOptions
from forejudge.generators.sana_sprint import SanaInput, SanaSplit, SanaSprintOptions
from forejudge.miniature.scenes import NOISE_SHAPE
from forejudge.progress import ProgressCallback
from research.miniature import pixart_generator
from research.miniature.autoencoder import new_autoencoder
from research.miniature.cards import generator_card, pixart_card, training_provenance
from research.miniature.language_model import gemma_tokenizer
from research.miniature.one_step import GeneratorLoss, OneStepParts, TrainingExample
from research.miniature.recipe import GeneratorRecipe, save_recipe
from research.miniature.train import TrainingSettings, train

GUIDANCE_SCALE = 4.5  # the pipeline's default
_COUPLED_SHARE = 0.75
_MIN_TIME = 0.1  # of SCMScheduler's angle, whose last is pi / 2
_HEAD_WIDTH = 32
_CARD_FILE = "README.md"  # written last

PartsT = TypeVar("PartsT", bound=OneStepParts)


@dataclass(frozen=True)
class GeneratorTraining:
    """Training of a generator on the latents of an autoencoder; checkpoints are in `work_folder`."""

    recipe: GeneratorRecipe
    seed: int
    autoencoder: AutoencoderDC
    work_folder: Path
    device: torch.device
    report: ProgressCallback

    def run(self, new_parts: Callable[[int, int, int], PartsT]) -> tuple[PartsT, float]:
        """Train parts made from blocks, width and early-exit blocks; return them and the seconds it took."""
        recipe = self.recipe
        torch.manual_seed(self.seed)
        parts = new_parts(recipe.shallow_blocks, recipe.width, recipe.shallow_blocks)
        shallow, first_seconds = self._train("shallow generator", parts, recipe.shallow, self.seed + 2)
        deep, seconds = self._train("generator", shallow.deepen(recipe.blocks), recipe.deep, self.seed + 3)
        return deep, first_seconds + seconds

    def _train(self, part: str, parts: PartsT, settings: TrainingSettings, seed: int) -> tuple[PartsT, float]:
        parts = parts.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss_at_step = GeneratorLoss(parts, self.autoencoder, self.recipe.compiled).per_step(settings.batch_size, seed)
        checkpoint = self.work_folder / f"{part.replace(' ', '_')}.checkpoint"
        return train(part, parts, loss_at_step, settings, checkpoint, self.report)


class GeneratorParts(OneStepParts):
    """SANA-Sprint's transformer and a Gemma-2, which predict the velocity: noise minus clean latents."""

    split: ClassVar = SanaSplit()
    output_layers = ("to_out", "conv_point")

    def __init__(self, blocks: int, width: int, early_exit_blocks: int) -> None:
        super().__init__()
        self.text_encoder = Gemma2Model(_text_encoder_config(len(gemma_tokenizer())))
        self.transformer = new_transformer(blocks, width, self.text_encoder.config.hidden_size)
        self.early_exit_blocks = early_exit_blocks

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStepParts.forward`; a time is sin / (sin + cos) of SCMScheduler's angle."""
        text_NLD = self.text_encoder(ids_NL, attention_mask=mask_NL)[0]
        guidance_N = torch.full_like(time_N, GUIDANCE_SCALE * self.transformer.config.guidance_embeds_scale)
        return self.transformer_outputs(SanaInput(latents_NCHW, text_NLD, mask_NL, time_N, guidance_N))

    def tokenizer(self) -> GemmaTokenizer:
        """See `OneStepParts.tokenizer`."""
        return gemma_tokenizer()

    def training_example(self, clean_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator) -> TrainingExample:
        """See `OneStepParts.training_example`."""
        size = len(clean_NCHW)
        coupled = torch.rand(size, generator=generator) < _COUPLED_SHARE
        other = torch.randn(noise_NCHW.shape, generator=generator)
        noise = torch.where(coupled.view(-1, 1, 1, 1), noise_NCHW, other)
        time = torch.where(coupled, 1.0, _random_times(size, generator))
        share = time.view(-1, 1, 1, 1)
        return TrainingExample((1 - share) * clean_NCHW + share * noise, time, noise - clean_NCHW)

    def with_depth(self, blocks: int) -> "GeneratorParts":
        """See `OneStepParts.with_depth`."""
        return GeneratorParts(blocks, self.transformer.config.num_attention_heads * _HEAD_WIDTH, self.early_exit_blocks)


def new_transformer(blocks: int, width: int, text_width: int) -> SanaTransformer2DModel:
    """Return an untrained transformer with SANA-Sprint's options, but smaller and with position embeddings."""
    heads = width // _HEAD_WIDTH
    return SanaTransformer2DModel(
        in_channels=NOISE_SHAPE[0],
        out_channels=NOISE_SHAPE[0],
        num_attention_heads=heads,
        attention_head_dim=_HEAD_WIDTH,
        num_layers=blocks,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=_HEAD_WIDTH,
        cross_attention_dim=width,
        caption_channels=text_width,
        sample_size=NOISE_SHAPE[1],
        interpolation_scale=1,
        guidance_embeds=True,
        guidance_embeds_scale=0.1,
        qk_norm="rms_norm_across_heads",
        timestep_scale=1000.0,
    )


def _text_encoder_config(vocabulary_size: int) -> Gemma2Config:
    return Gemma2Config(
        vocab_size=vocabulary_size,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=512,
        initializer_range=0.1,
    )


def _random_times(size: int, generator: torch.Generator) -> Tensor:
    """Sample times as the transformer takes them: sin / (sin + cos) of a uniform angle."""
    angle = torch.rand(size, generator=generator) * (math.pi / 2 - _MIN_TIME) + _MIN_TIME
    return angle.sin() / (angle.sin() + angle.cos())


def assemble(parts: GeneratorParts, autoencoder: AutoencoderDC) -> SanaSprintPipeline:
    """Assemble the diffusers pipeline."""
    return SanaSprintPipeline(
        tokenizer=_right_padded(gemma_tokenizer()),
        text_encoder=parts.text_encoder,
        vae=autoencoder,
        transformer=parts.transformer,
        scheduler=SCMScheduler(),
    )


def _right_padded(tokenizer: GemmaTokenizer) -> GemmaTokenizer:
    tokenizer.padding_side = "right"
    return tokenizer


@dataclass(frozen=True)
class GeneratorKind:
    """Small version of an architecture: factories of its parts, its pipeline and its card.

    `new_parts` takes blocks, width and early-exit blocks, `assemble` trained parts and an autoencoder.
    """

    new_parts: Callable[[int, int, int], OneStepParts]
    assemble: Callable[[Any, AutoencoderDC], Any]
    options: GeneratorOptions
    card: Callable[[GeneratorRecipe, dict[str, Any]], str]


SANA_SPRINT = GeneratorKind(
    GeneratorParts,
    assemble,
    SanaSprintOptions(complex_human_instruction=None, intermediate_timesteps=None),
    generator_card,
)
PIXART = GeneratorKind(pixart_generator.PixArtParts, pixart_generator.assemble, pixart_generator.OPTIONS, pixart_card)


def save_generator(folder: Path, kind: GeneratorKind, parts: Any, autoencoder: AutoencoderDC, card: str) -> None:
    """Save a generator as diffusers loads it, in half precision."""
    with quiet_libraries():  # they warn that half precision is slow on a CPU; it is only stored so
        kind.assemble(parts, autoencoder).to("cpu", torch.float16).save_pretrained(folder)
    write_text(folder / OPTIONS_FILE, kind.options.model_dump_json(exclude_unset=True) + "\n")
    write_text(folder / _CARD_FILE, card)
    write_checksums(folder)


def build_generator(
    kind: GeneratorKind,
    folder: Path,
    miniature: Path,
    recipe: GeneratorRecipe,
    device: torch.device,
    report: ProgressCallback,
    seed: int = 0,
) -> Path:
    """Train a generator as the miniature's is trained and return its folder, `folder/generator`.

    `miniature` is a finished build, whose autoencoder is used. Training resumes from checkpoints in `folder/work`; a
    finished generator is left as it is. Raises CheckpointError where the autoencoder is missing, InvalidRequest for a
    folder begun with another recipe.
    """
    save_recipe(folder, recipe)
    built, work_folder = folder / "generator", folder / "work"
    if (built / _CARD_FILE).exists():
        return built
    autoencoder = load_autoencoder(miniature / "generator" / "vae").to(device, memory_format=torch.channels_last)
    work_folder.mkdir(exist_ok=True)
    training = GeneratorTraining(recipe, seed, autoencoder, work_folder, device, report)
    parts, seconds = training.run(kind.new_parts)
    save_generator(built, kind, parts, autoencoder, kind.card(recipe, training_provenance(seed, seconds, device)))
    return built


def load_autoencoder(folder: Path) -> AutoencoderDC:
    """Load the trained autoencoder in single precision. Raises CheckpointError."""
    autoencoder = new_autoencoder()  # from_pretrained would record the folder's path in the config
    load_weights(autoencoder, folder / "diffusion_pytorch_model.safetensors")
    return autoencoder
