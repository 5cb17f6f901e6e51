"""What a generator and its verifiers are made of: configurations from which the libraries' classes make each part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from diffusers import AutoencoderDC, SanaTransformer2DModel
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig

from forejudge.generators.sana_sprint import MAX_TEXT_TOKENS, SanaSprint
from forejudge.verifiers.clip import ClipReading
from forejudge.verifiers.language_model import LanguageModelVerifier


@dataclass(frozen=True)
class TextTokens:
    """Of a prompt: how many the text encoder knows already, how many it reads, and how many the transformer takes."""

    known: int
    read: int
    taken: int


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
            generator.instruction_tokens + MAX_TEXT_TOKENS,
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
        left, right = verifier.question.tokens_around_picture(prompt)
        reading = verifier.reading
        tower = reading.tower.config if isinstance(reading, ClipReading) else None
        merged = verifier.config.spatial_merge_size
        return cls(verifier.model.language_model.config, len(left) + len(right), tower, merged)

    def new_language_model(self, attention: str | None = None) -> Any:
        """Untrained, as the tower, on torch's default device; for `attention` see `GeneratorSizes.new_text_encoder`."""
        return AutoModelForCausalLM.from_config(self.language_model, attn_implementation=attention)

    def new_vision_tower(self) -> CLIPVisionModel:
        """Of a verifier that has one."""
        assert self.vision_tower is not None, "only a verifier that reads pictures has a tower"
        return CLIPVisionModel(self.vision_tower)


@dataclass(frozen=True)
class ModelSizes:
    """A generator and verifiers that read it; a hidden state is read after `prefix_blocks` blocks."""

    generator: GeneratorSizes
    verifier: VerifierSizes
    prefix_blocks: int
