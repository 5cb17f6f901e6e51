"""The verifier that reads a transformer's hidden state after its first blocks (VHS, paper: s = LLM(C(h), p)).

A checkpoint is a folder: verifier.json (VerifierConfig), connector.safetensors, language_model/ with its tokenizer.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from forejudge.checkpoint import load_library_model, load_strictly, load_tokenizer, quiet_libraries, read_config
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators.base import Architecture, Generator
from forejudge.types import Candidates, Verdict, prefix_stage
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.calibration import Calibration
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.question import PUBLISHED_QUESTION, Question, check_question
from forejudge.verifiers.yes_no import YesNoModel


class VerifierConfig(BaseModel):
    """What a verifier reads, of which generator, and how it asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: Architecture
    generator_fingerprint: str
    num_prefix_blocks: int = Field(ge=1)
    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    calibration: Calibration | None = None


class HiddenStateVerifier(Verifier):
    """Yes or no from hidden_NTD after `num_prefix_blocks` blocks of the first step."""

    def __init__(
        self,
        name: str,
        config: VerifierConfig,
        model: YesNoModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.name, self.config, self.model = name, config, model.eval()
        self.tokenizer, self.question = tokenizer, Question(config.question, tokenizer)
        self.answers = list(self.question.answer_tokens())
        self.reads = frozenset({prefix_stage(config.num_prefix_blocks)})
        self.calibrated = config.calibration is not None

    @classmethod
    def from_pretrained(
        cls, folder: Path, name: str, device: torch.device, dtype: torch.dtype
    ) -> "HiddenStateVerifier":
        """Load a checkpoint folder. Raises CheckpointError for a missing, truncated or foreign file."""
        config = read_config(folder / "verifier.json", VerifierConfig)
        language_model: Any = load_library_model(AutoModelForCausalLM, folder / "language_model", torch.float32)
        connector = Connector(config.generator.width, language_model.config.hidden_size)
        load_strictly(connector, folder / "connector.safetensors")
        tokenizer = load_tokenizer(AutoTokenizer, folder / "language_model")
        return cls(name, config, YesNoModel(connector, language_model).to(device, dtype), tokenizer)

    def save_pretrained(self, folder: Path) -> None:
        """Write a checkpoint folder, the weights in their present dtype."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "verifier.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        save_file(self.model.connector.state_dict(), folder / "connector.safetensors")
        with quiet_libraries():
            self.model.language_model.save_pretrained(folder / "language_model")
            self.tokenizer.save_pretrained(folder / "language_model")

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        made_for, found = self.config.generator, generator.architecture
        for field in Architecture.model_fields:
            expected, actual = getattr(made_for, field), getattr(found, field)
            if expected != actual:
                raise MismatchError(
                    f"verifier {self.name} reads a generator with {field} = {expected}, but {generator.name} has "
                    f"{field} = {actual}: use the verifier that was trained for it"
                )
        if self.config.num_prefix_blocks > found.num_blocks:
            raise MismatchError(
                f"verifier {self.name} reads after {self.config.num_prefix_blocks} blocks, but {generator.name} "
                f"has only {found.num_blocks}"
            )
        if self.config.generator_fingerprint != generator.fingerprint:
            return [
                f"verifier {self.name} was trained on weights {self.config.generator_fingerprint}, "
                f"{generator.name} has {generator.fingerprint}: its verdicts may not hold"
            ]
        return []

    @torch.no_grad()
    def judge(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.judge`."""
        (stage,) = self.reads
        hidden_NTD = candidates.tensor(stage)
        left, right = self.question.tokens_around_picture(prompt)
        left_NL, right_NL = (
            torch.tensor(tokens, device=hidden_NTD.device).expand(len(candidates), -1) for tokens in (left, right)
        )
        log_p_NV = self.model(hidden_NTD.to(self._dtype), left_NL, right_NL)
        return [self._verdict(yes, no) for yes, no in log_p_NV[:, self.answers].tolist()]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _verdict(self, log_p_yes: float, log_p_no: float) -> Verdict:
        log_odds = log_p_yes - log_p_no
        if not math.isfinite(log_odds):
            raise InvalidRequest(
                f"verifier {self.name} gave no number in {self._dtype}: its range does not hold the hidden states, "
                "use bfloat16 or float32"
            )
        calibration = self.config.calibration
        probability = None if calibration is None else calibration.probability(log_odds)
        return Verdict(log_odds, log_odds, math.exp(log_p_yes), math.exp(log_p_no), probability)
