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
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from forejudge.checkpoint import load_strictly, read_config
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Generator
from forejudge.hub import Source, fetch
from forejudge.library_calls import quiet_libraries
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.types import Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.question import Question
from forejudge.verifiers.reading import VISION_TOWER, Reading, reading_named
from forejudge.verifiers.verifier_config import CONFIG_FILE, VerifierConfig
from forejudge.verifiers.yes_no import YesNoModel

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
        reading: Reading | None = None,
    ) -> None:
        self.name, self.config, self.model = name, config, model.eval()
        self.reading = reading or reading_named(config.reads)
        self.tokenizer, self.question = tokenizer, Question(config.question, tokenizer)
        self.answers = list(self.question.answer_tokens())
        self.reads = frozenset({self.reading.stage})
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
        reading = reading_named(config.reads, folder / VISION_TOWER, dtype)
        language_model: Any = load_library_model(AutoModelForCausalLM, folder / LANGUAGE_MODEL, dtype, device)
        connector = config.new_connector(reading, language_model.config.hidden_size)
        load_strictly(connector, folder / CONNECTOR_FILE, keep_dtypes=True)
        head = nn.Linear(language_model.config.hidden_size, 1) if config.has_head else None
        if head is not None:
            load_strictly(head, folder / HEAD_FILE)
        tokenizer = load_tokenizer(AutoTokenizer, folder / LANGUAGE_MODEL)
        # The language model keeps the frequencies of its positions in float32, so it is not moved again.
        model = YesNoModel(connector.to(device, dtype), language_model, head and head.to(device, dtype))
        reading.to(torch.device(device), dtype)
        verifier = cls(name or str(source), config, model, tokenizer, reading)
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
        self.reading.save_pretrained(folder)
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
        width, own_width = self.reading.width(generator.architecture), self.model.connector.width
        if width != own_width:
            raise MismatchError(
                f"verifier {self.name} standardises {own_width} channels, but {self.reading.name} of {generator.name} "
                f"has {width}: use the verifier that was trained for it"
            )
        return list(self.config.doubts(generator, self.name))

    def in_step(self, step: int) -> "LanguageModelVerifier":
        """See `Verifier.in_step`."""
        moved = copy(self)
        moved.reading = self.reading.in_step(step)
        moved.reads = frozenset({moved.reading.stage})
        return moved

    def compiled(self) -> "LanguageModelVerifier":
        """See `Verifier.compiled`."""
        found = copy(self)
        found.model, found.reading = self.model.compiled(), self.reading.compiled()
        return found

    @torch.no_grad()
    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`."""
        answered = self.answered(prompt, candidates)
        if self.model.head is not None:
            return [self._verdict(value) for value in answered[:, 0].tolist()]
        return [
            self._verdict(yes - no, yes - no, math.exp(yes), math.exp(no))
            for yes, no in answered[:, self.answers].tolist()
        ]

    @torch.no_grad()
    def answered(self, prompt: str, candidates: Candidates) -> Tensor:
        """What `YesNoModel` answers of each candidate: log-probabilities of the first new token (N, V), or a number."""
        tokens_NTD = self.reading.tokens(candidates)
        left, right = self.question.tokens_around_picture(prompt)
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
