"""The verifier: a language model that reads a candidate through a connector and answers yes or no.

What it reads makes it the paper's VHS (a hidden state), MLLM w/ AE (the latent) or MLLM w/ CLIP (the picture). Its
folder: verifier.json (VerifierConfig), connector.safetensors, language_model/ with its tokenizer, with reading clip
vision_tower/, with a head head.safetensors.
"""

import hashlib
import math
import shutil
from copy import copy
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from forejudge.checkpoint import load_weights, quiet_libraries
from forejudge.compiling import compile_layers
from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Generator
from forejudge.hub import Source, fetch
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.types import Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.config import CONFIG_FILE, VerifierConfig
from forejudge.verifiers.connector import Connector, KeepBufferDtype
from forejudge.verifiers.inputs import VISION_TOWER, VerifierInput, build_verifier_input
from forejudge.verifiers.question import Question

# FOLDED: Picture tokens in, an answer out: one forward pass of a causal language model.


class YesNoModel(KeepBufferDtype):
    """A connector and a language model that reads its output between two runs of text tokens.

    With a `head` (hidden size to 1) the answer is a number read off the last hidden state instead of a next token.
    """

    def __init__(self, connector: Connector, language_model: PreTrainedModel, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.connector, self.language_model, self.head = connector, language_model, head

    def forward(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """Log-probabilities of the next token over the whole vocabulary (N, V), or the head's value (N, 1); float32.

        `right_NL` may be padded on its right; `mask_NL` of its shape then says which tokens count. Attention is
        causal: what follows the last real token cannot change it.
        """
        embedded_NSE = self.embed(tokens_NTD, left_NL, right_NL)
        padding_N = None if mask_NL is None else (mask_NL == 0).sum(1)
        if self.head is not None:
            decoder = self.language_model.get_decoder()
            states_NSE = decoder(inputs_embeds=embedded_NSE, use_cache=False).last_hidden_state
            return self.head(_last_token(states_NSE, padding_N)).float()
        # Without a mask nothing is asked of the device here: it may still be busy with what comes before.
        logits_to_keep = 1 if padding_N is None else int(padding_N.max()) + 1
        logits_NKV = self.language_model(
            inputs_embeds=embedded_NSE, logits_to_keep=logits_to_keep, use_cache=False
        ).logits
        return _last_token(logits_NKV, padding_N).float().log_softmax(-1)

    def compiled(self) -> "YesNoModel":
        """The same weights, the language model's layers compiled."""
        return YesNoModel(self.connector, compile_layers(self.language_model), self.head).train(self.training)

    def embed(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor) -> Tensor:
        """What the language model reads: text, picture, text, each token as its embedding (N, S, E)."""
        embedding = self.language_model.get_input_embeddings()
        return torch.cat([embedding(left_NL), self.connector(tokens_NTD), embedding(right_NL)], dim=1)


def _last_token(values_NSE: Tensor, padding_N: Tensor | None) -> Tensor:
    """Of each row what stands before its padding: (N, E)."""
    if padding_N is None:
        return values_NSE[:, -1]
    return values_NSE[torch.arange(len(values_NSE), device=values_NSE.device), -1 - padding_N]


CONNECTOR_FILE, HEAD_FILE = "connector.safetensors", "head.safetensors"
LANGUAGE_MODEL = "language_model"
COMPANIONS = ("README.md", "metrics.json", "recipe.json", "trained_on.json")  # that training leaves beside the weights


class LanguageModelVerifier(Verifier):
    """Yes or no from what `config.reads` names; saved, loaded and shared as a transformers model is."""

    folder: Path | None = None  # it was loaded from

    def __init__(
        self,
        name: str,
        config: VerifierConfig,
        model: YesNoModel,
        tokenizer: PreTrainedTokenizerBase,
        verifier_input: VerifierInput | None = None,
    ) -> None:
        self.name, self.config, self.model = name, config, model.eval()
        self.verifier_input = verifier_input or build_verifier_input(config.reads)
        self.tokenizer, self.question = tokenizer, Question(config.question, tokenizer)
        self.answer_token_ids = list(self.question.answer_token_ids())
        self.reads = frozenset({self.verifier_input.stage})
        self.calibrated = config.calibration is not None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | Source,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "LanguageModelVerifier":
        """Load a verifier's folder, or a hub id. Raises CheckpointError for a missing, truncated or foreign file."""
        source = folder if isinstance(folder, Source) else fetch(str(folder))
        folder = source.folder
        config = read_config(folder / CONFIG_FILE, VerifierConfig)
        verifier_input = build_verifier_input(config.reads, folder / VISION_TOWER, dtype)
        language_model: Any = load_library_model(AutoModelForCausalLM, folder / LANGUAGE_MODEL, dtype, device)
        connector = config.new_connector(verifier_input, language_model.config.hidden_size)
        load_weights(connector, folder / CONNECTOR_FILE, keep_dtypes=True)
        head = nn.Linear(language_model.config.hidden_size, 1) if config.has_head else None
        if head is not None:
            load_weights(head, folder / HEAD_FILE)
        tokenizer = load_tokenizer(AutoTokenizer, folder / LANGUAGE_MODEL)
        # The language model keeps the frequencies of its positions in float32, so it is not moved again.
        model = YesNoModel(connector.to(device, dtype), language_model, head and head.to(device, dtype))
        verifier_input.to(torch.device(device), dtype)
        verifier = cls(name or str(source), config, model, tokenizer, verifier_input)
        verifier.folder, verifier.source = folder, source
        return verifier

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a verifier's folder, the weights in their present dtype; its card and figures go along."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n")
        save_file(self.model.connector.state_dict(), folder / CONNECTOR_FILE)
        if self.model.head is not None:
            save_file(self.model.head.state_dict(), folder / HEAD_FILE)
        self.verifier_input.save_pretrained(folder)
        with quiet_libraries():
            self.model.language_model.save_pretrained(folder / LANGUAGE_MODEL)
            self.tokenizer.save_pretrained(folder / LANGUAGE_MODEL)

        if self.folder is not None and self.folder.resolve() != folder.resolve():
            for companion in (self.folder / name for name in COMPANIONS):
                if companion.is_file():
                    shutil.copyfile(companion, folder / companion.name)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Save it to a repository of the hub, made if need be; returns the commit's address. Errors are the hub's."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload verifier")
        return commit.commit_url

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        self.config.check(generator, self.name)
        width, expected_width = self.verifier_input.width(generator.architecture), self.model.connector.width
        if width != expected_width:
            raise MismatchError(
                f"verifier {self.name} standardises {expected_width} channels, but {self.verifier_input.name} of {generator.name} "
                f"has {width}: use the verifier that was trained for it"
            )
        return list(self.config.mismatch_warnings(generator, self.name))

    def at_step(self, step: int) -> "LanguageModelVerifier":
        """See `Verifier.at_step`."""
        clone = copy(self)
        clone.verifier_input = self.verifier_input.at_step(step)
        clone.reads = frozenset({clone.verifier_input.stage})
        return clone

    def compiled(self) -> "LanguageModelVerifier":
        """See `Verifier.compiled`."""
        clone = copy(self)
        clone.model, clone.verifier_input = self.model.compiled(), self.verifier_input.compiled()
        return clone

    @torch.no_grad()
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`."""
        logprobs = self.logprobs(prompt, candidates)
        if self.model.head is not None:
            return [self._verdict(value) for value in logprobs[:, 0].tolist()]
        return [
            self._verdict(yes - no, yes - no, math.exp(yes), math.exp(no))
            for yes, no in logprobs[:, self.answer_token_ids].tolist()
        ]

    @torch.no_grad()
    def logprobs(self, prompt: str, candidates: Candidates) -> Tensor:
        """What `YesNoModel` answers of each candidate: log-probabilities of the first new token (N, V), or a number."""
        tokens_NTD = self.verifier_input.tokens(candidates)
        left, right = self.question.tokens_around_image(prompt)
        left_NL, right_NL = (
            torch.tensor(tokens, device=tokens_NTD.device).expand(len(candidates), -1) for tokens in (left, right)
        )
        return self.model(tokens_NTD, left_NL, right_NL)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """See `Verifier.digest`: 16 hexadecimal digits of the connector's weights, which every training changes."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.connector.state_dict().items()):
            digest.update(name.encode() + weight.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _verdict(
        self, score: float, log_odds: float | None = None, p_yes: float | None = None, p_no: float | None = None
    ) -> Verdict:
        if not math.isfinite(score):
            raise InvalidRequest(
                f"verifier {self.name} gave no number in {self._dtype}: its range does not hold the hidden states, "
                "use bfloat16 or float32"
            )
        calibration = self.config.calibration
        probability = None if calibration is None else calibration.probability(score)
        return Verdict(score, log_odds, p_yes, p_no, probability)
