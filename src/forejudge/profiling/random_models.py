"""Models of known sizes with random weights, made where they run: no file, no hub.

What they draw is noise and what they say of it chance; how long they take is what the sizes take.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SanaSprintPipeline, SCMScheduler
from tokenizers import pre_tokenizers
from transformers import CLIPImageProcessorPil, GemmaTokenizer, Qwen2Tokenizer

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling
from forejudge.generators.sana_sprint import MAX_TEXT_TOKENS, SanaSprint, SanaSprintOptions
from forejudge.profiling.model_sizes import GeneratorSizes, ModelSizes, VerifierSizes
from forejudge.profiling.profiled import PROMPT, Profiled
from forejudge.profiling.sana_sprint_sizes import PUBLISHED, SMALL
from forejudge.verifiers.clip import ClipReading
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.question import Question
from forejudge.verifiers.reading import Reading, reading_named
from forejudge.verifiers.verifier_config import VerifierConfig
from forejudge.verifiers.yes_no import YesNoModel

RANDOM_MODELS: dict[str, ModelSizes] = {"sana-sprint-1.6b": PUBLISHED, "sana-sprint-small": SMALL}
KINDS = ("hidden", "clip", "latent")  # of verifiers
_QUESTION = "Look: <image> {prompt}"
_FILLER = "."


def random_models(
    name: str, kinds: Iterable[str], sampling: Sampling, device: torch.device, dtype: torch.dtype
) -> Profiled:
    """One of RANDOM_MODELS, and verifiers of KINDS that read it. The weights are the same each time.

    Texts are padded until every model reads as many tokens as its sizes say. Raises InvalidRequest for another name.
    """
    if name not in RANDOM_MODELS:
        raise InvalidRequest(f"no sizes are known of {name!r}: with random weights there are {_listed(RANDOM_MODELS)}")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise InvalidRequest(f"no verifier reads {unknown[0]!r}: with random weights there are {_listed(KINDS)}")
    sizes = RANDOM_MODELS[name]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        generator = _generator(sizes.generator, name, device, dtype)
        cut = f"hidden:{sizes.prefix_blocks}"
        verifiers = {kind: new_verifier(sizes.verifier, cut if kind == "hidden" else kind, generator) for kind in kinds}
    return Profiled(generator, verifiers, _prompt(sizes.verifier), sampling)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


@contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """New weights are made there, in that precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _generator(sizes: GeneratorSizes, name: str, device: torch.device, dtype: torch.dtype) -> SanaSprint:
    with _made_on(device, dtype):
        models = sizes.new_text_encoder(), sizes.new_autoencoder(), sizes.new_transformer()
    text_encoder, autoencoder, transformer = (model.eval().requires_grad_(False) for model in models)
    pipeline = SanaSprintPipeline(_text_tokenizer(), text_encoder, autoencoder, transformer, SCMScheduler())
    instruction = _FILLER * (sizes.text_tokens - MAX_TEXT_TOKENS + 2)  # the pipeline takes two off
    options = SanaSprintOptions(complex_human_instruction=(instruction,), use_resolution_binning=False)
    return SanaSprint(pipeline, f"{name} with random weights", options)


def new_verifier(sizes: VerifierSizes, reads: str, generator: SanaSprint) -> LanguageModelVerifier:
    """A verifier of random weights, which reads of a generator what `reads` spells (see `reading_named`)."""
    with _made_on(generator.device, generator.dtype):
        language_model = sizes.new_language_model().requires_grad_(False)
        tower = sizes.new_vision_tower() if reads == "clip" else None
    reading: Reading = reading_named(reads) if tower is None else ClipReading(tower, _picture_processor(tower))
    connector = Connector(reading.width(generator.architecture), language_model.config.hidden_size, sizes.merge_size)
    connector.to(generator.device, generator.dtype).requires_grad_(False)
    config = VerifierConfig.of(generator, reads, question=_QUESTION, spatial_merge_size=sizes.merge_size)
    model = YesNoModel(connector, language_model)
    return LanguageModelVerifier(f"{reads} with random weights", config, model, _chat_tokenizer(), reading)


def _prompt(sizes: VerifierSizes) -> str:
    """PROMPT, with filling until a question about it has as many tokens as the sizes say."""
    left, right = Question(_QUESTION, _chat_tokenizer()).tokens_around_picture(PROMPT)
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


def _picture_processor(tower: Any) -> CLIPImageProcessorPil:
    side = tower.config.image_size
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
