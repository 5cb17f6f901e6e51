"""Verifier of the paper: a language model that reads a candidate through a connector and answers yes or no.

Its input makes it VHS (a hidden state), MLLM w/ AE (the latent) or MLLM w/ CLIP (the image, or a preview of it). Its
folder holds verifier.json, connector.safetensors, language_model/ with its tokenizer, with a head head.safetensors, for
clip and preview vision_tower/, and for preview tiny_decoder/.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, JsonValue
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from forejudge.checkpoint import load_weights, quiet_libraries
from forejudge.compiling import compile_layers
from forejudge.digests import PROBE
from forejudge.generators.base import Dimension
from forejudge.library_models import check_vocabulary, load_library_model, load_tokenizer
from forejudge.types import Candidates, Grid, Verdict
from forejudge.verifiers.base import PretrainedVerifier
from forejudge.verifiers.config import VerifierConfig
from forejudge.verifiers.connector import Connector, KeepBufferDtype, StatisticsKind
from forejudge.verifiers.inputs import VerifierInput
from forejudge.verifiers.question import PUBLISHED_QUESTION, Question, check_question

CONNECTOR_FILE, HEAD_FILE = "connector.safetensors", "head.safetensors"
LANGUAGE_MODEL = "language_model"


class LanguageModelVerifierConfig(VerifierConfig):
    """verifier.json of a `LanguageModelVerifier`.

    For `spatial_merge_size`, `statistics` and their `tokens` see `Connector`. With `has_head` the score is a number
    from a head, trained by regression, and not the log-odds of yes. At `stage` "align" the connector was trained, but
    not to answer: stage 2 of training begins with it. `published_config` is the config.json of an
    imported verifier.
    """

    kind: Literal["language_model"] = "language_model"
    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    spatial_merge_size: Dimension = 1
    statistics: StatisticsKind = "channel"
    tokens: Dimension | None = None
    has_head: bool = False
    stage: Literal["align", "verify"] = "verify"
    published_config: dict[str, JsonValue] | None = None

    def new_connector(self, verifier_input: VerifierInput, embedding_width: int) -> Connector:
        """Build an untrained connector for an input. Raises MismatchError if the generator has no such stage."""
        width = self.input_width(verifier_input)
        return Connector(width, embedding_width, self.spatial_merge_size, self.statistics, self.tokens or 1)


class YesNoModel(KeepBufferDtype):
    """A connector and a language model that reads its output between two runs of text tokens.

    With a `head` (hidden size to 1) the answer is a number from the last hidden state instead of a next token.
    """

    def __init__(self, connector: Connector, language_model: PreTrainedModel, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.connector, self.language_model, self.head = connector, language_model, head

    def forward(
        self,
        tokens_NTD: Tensor,
        left_NL: Tensor,
        right_NL: Tensor,
        mask_NL: Tensor | None = None,
        grid: Grid | None = None,
    ) -> Tensor:
        """Return log-probabilities of the next token (N, V), or the head's value (N, 1), in float32.

        `right_NL` may be padded on its right; `mask_NL` of its shape then marks the real tokens. Attention is causal:
        padding after the last real token does not change the answer. `grid` is that of the image (default: a square).
        """
        embedded_NSE = self.embed(tokens_NTD, left_NL, right_NL, grid)
        padding_N = None if mask_NL is None else (mask_NL == 0).sum(1)
        if self.head is not None:
            decoder = self.language_model.get_decoder()
            states_NSE = decoder(inputs_embeds=embedded_NSE, use_cache=False).last_hidden_state
            return self.head(_last_token(states_NSE, padding_N)).float()
        # Without a mask nothing here waits for the device, which may still be busy with earlier work.
        keep = 1 if padding_N is None else int(padding_N.max()) + 1
        logits_NKV = self.language_model(inputs_embeds=embedded_NSE, logits_to_keep=keep, use_cache=False).logits
        return _last_token(logits_NKV, padding_N).float().log_softmax(-1)

    def compiled(self) -> "YesNoModel":
        """Return a model with the same weights whose language model's layers are compiled."""
        return YesNoModel(self.connector, compile_layers(self.language_model), self.head).train(self.training)

    def embed(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, grid: Grid | None = None) -> Tensor:
        """Embed the language model's input (N, S, E): text, image, text."""
        embedding = self.language_model.get_input_embeddings()
        return torch.cat([embedding(left_NL), self.connector(tokens_NTD, grid), embedding(right_NL)], dim=1)


def _last_token(values_NSE: Tensor, padding_N: Tensor | None) -> Tensor:
    """Return each row's last value before its padding (N, E)."""
    if padding_N is None:
        return values_NSE[:, -1]
    return values_NSE[torch.arange(len(values_NSE), device=values_NSE.device), -1 - padding_N]


class LanguageModelVerifier(PretrainedVerifier[LanguageModelVerifierConfig]):
    """Verifier that asks a language model whether a candidate fits its prompt; `config.reads` names its input."""

    config_class = LanguageModelVerifierConfig

    def __init__(
        self,
        name: str,
        config: LanguageModelVerifierConfig,
        model: YesNoModel,
        tokenizer: PreTrainedTokenizerBase,
        verifier_input: VerifierInput | None = None,
    ) -> None:
        super().__init__(name, config, verifier_input)
        self.model, self.tokenizer, self.question = model.eval(), tokenizer, Question(config.question, tokenizer)
        self.answer_token_ids = list(self.question.answer_token_ids())
        check_vocabulary(tokenizer, model.language_model)

    @classmethod
    def load_model(
        cls,
        folder: Path,
        name: str,
        config: LanguageModelVerifierConfig,
        verifier_input: VerifierInput,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        """See `PretrainedVerifier.load_model`."""
        language_model: Any = load_library_model(AutoModelForCausalLM, folder / LANGUAGE_MODEL, dtype, device)
        embedding_width: int = language_model.config.hidden_size
        connector = config.new_connector(verifier_input, embedding_width)
        load_weights(connector, folder / CONNECTOR_FILE, keep_dtypes=True)
        head = nn.Linear(embedding_width, 1) if config.has_head else None
        if head is not None:
            load_weights(head, folder / HEAD_FILE)
        tokenizer = load_tokenizer(AutoTokenizer, folder / LANGUAGE_MODEL)
        # The language model keeps its rotary frequencies in float32, so it is not moved again.
        model = YesNoModel(connector.to(device, dtype), language_model, head and head.to(device, dtype))
        return cls(name, config, model, tokenizer, verifier_input)

    def save_model(self, folder: Path) -> None:
        """See `PretrainedVerifier.save_model`."""
        save_file(self.model.connector.state_dict(), folder / CONNECTOR_FILE)
        if self.model.head is not None:
            save_file(self.model.head.state_dict(), folder / HEAD_FILE)
        with quiet_libraries():
            self.model.language_model.save_pretrained(folder / LANGUAGE_MODEL)
            self.tokenizer.save_pretrained(folder / LANGUAGE_MODEL)

    def weights(self) -> Mapping[str, Tensor]:
        """See `PretrainedVerifier.weights`."""
        return self.model.state_dict()

    def question_tokens(self) -> Any:
        """See `PretrainedVerifier.question_tokens`."""
        return self.question.tokens_around_image(PROBE)

    @property
    def input_width(self) -> int:
        """See `PretrainedVerifier.input_width`."""
        return self.model.connector.width

    def compiled(self) -> Self:
        """See `Verifier.compiled`."""
        clone = super().compiled()
        clone.model = self.model.compiled()
        return clone

    @torch.no_grad()
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`."""
        logprobs = self.logprobs(prompt, candidates)
        if self.model.head is not None:
            return [self.verdict(value) for value in logprobs[:, 0].tolist()]
        return [
            self.verdict(yes - no, yes - no, math.exp(yes), math.exp(no))
            for yes, no in logprobs[:, self.answer_token_ids].tolist()
        ]

    @torch.no_grad()
    def logprobs(self, prompt: str, candidates: Candidates) -> Tensor:
        """Return the output of `YesNoModel` per candidate: log-probabilities (N, V), or the head's values (N, 1)."""
        tokens_NTD = self.verifier_input.tokens(candidates)
        left_NL, right_NL = (
            torch.tensor(tokens, device=tokens_NTD.device).expand(len(candidates), -1)
            for tokens in self.question.tokens_around_image(prompt)
        )
        return self.model(tokens_NTD, left_NL, right_NL, grid=self.verifier_input.grid(candidates))
