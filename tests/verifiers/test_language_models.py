"""Verifiers with any causal language model of transformers, of the class that its config names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from forejudge.types import Candidates, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.inputs import build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.question import PUBLISHED_QUESTION
from research.miniature.language_model import qwen2_tokenizer
from tests.support.doubles import ARCHITECTURE, CPU

CUT = prefix_stage(2)
WIDTH = 8
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
KINDS = [Qwen2Config, Qwen3Config, LlamaConfig, GemmaConfig, Gemma2Config, Gemma3TextConfig, SmolLM3Config]


def new_verifier(kind: Any) -> LanguageModelVerifier:
    torch.manual_seed(0)
    tokenizer = qwen2_tokenizer([PUBLISHED_QUESTION])
    language_model = AutoModelForCausalLM.from_config(kind(**SIZES, vocab_size=len(tokenizer)))
    architecture = ARCHITECTURE.model_copy(update={"width": WIDTH})
    config = LanguageModelVerifierConfig(generator=architecture, generator_fingerprint="0", reads="hidden:2")
    model = YesNoModel(config.new_connector(build_verifier_input(config.reads), 32), language_model)
    return LanguageModelVerifier("any", config, model, tokenizer)


def candidates(rows: list[int]) -> Candidates:
    hidden_NTD = torch.randn(4, 16, WIDTH, generator=torch.Generator().manual_seed(0))[rows]
    return Candidates(tuple(rows), CUT, {CUT: hidden_NTD}, None)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_loaded_and_scores_each_candidate_by_itself(tmp_path: Path, kind: Any) -> None:
    new_verifier(kind).save_pretrained(tmp_path)
    verifier = load_verifier(str(tmp_path), CPU, torch.float32)
    assert isinstance(verifier, LanguageModelVerifier)
    assert verifier.model.language_model.config.model_type == kind.model_type
    together = [verdict.score for verdict in verifier.score("a photo of a star", candidates([0, 1, 2, 3]))]
    assert len(set(together)) == 4
    assert together == [
        verdict.score for verdict in new_verifier(kind).score("a photo of a star", candidates([0, 1, 2, 3]))
    ]
    for row, score in enumerate(together):
        (alone,) = verifier.score("a photo of a star", candidates([row]))
        assert alone.score == pytest.approx(score, abs=1e-5)
        assert alone.p_yes is not None
        assert 0 < alone.p_yes < 1
