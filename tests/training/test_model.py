"""The two stages: what a batch gives is what each of its items gives, and checkpoints hold every tensor once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from forejudge.candidates.features import States
from forejudge.library_models import load_library_model
from forejudge.miniature.plugin import INSTRUCTION as MINIATURE_INSTRUCTION
from forejudge.miniature.plugin import QUESTION as MINIATURE_QUESTION
from forejudge.training.dataset import CaptionBatches, QuestionBatches, QuestionTokens
from forejudge.training.model import Alignment, Verification, log_odds
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier, YesNoModel
from forejudge.verifiers.question import Question
from tests.support.tiny_run import CPU, save_language_model

PROMPTS = ["a photo of a star", "a photo of a red circle above a blue square", "a photo of two discs"]
CAPTIONS = ["a star", "a red circle above a blue square", "two discs"]


class RandomStates(States):
    """Four tokens of eight channels for each of three rows."""

    tokens_NTD = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).half()

    def tokens(self, rows: list[int]) -> Tensor:  # type: ignore[override]
        return self.tokens_NTD[rows]


@pytest.fixture(scope="module", params=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model whose output layer is its input embedding, and one with two of them."""
    return save_language_model(tmp_path_factory.mktemp("language_model"), tied=request.param == "tied")


@pytest.fixture
def model(folder: Path) -> YesNoModel:
    torch.manual_seed(0)
    language_model = load_library_model(AutoModelForCausalLM, folder, torch.float32)
    return YesNoModel(Connector(8, 32), language_model).eval()


@pytest.fixture(params=["answers", "head"])
def verification(request: pytest.FixtureRequest, model: YesNoModel, question: Question) -> Verification:
    """Stage 2 with and without a head."""
    model.head = nn.Linear(32, 1) if request.param == "head" else None
    return Verification(model, question.answer_token_ids()).eval()


@pytest.fixture
def question(folder: Path) -> Question:
    return Question(MINIATURE_QUESTION, AutoTokenizer.from_pretrained(folder))


@pytest.fixture
def questions(question: Question) -> QuestionBatches:
    return QuestionBatches(RandomStates(), QuestionTokens(question), PROMPTS, [True, False, True])


@torch.no_grad()
def logprobs(stage: Verification, batch: dict[str, Tensor]) -> Tensor:
    return stage(**{name: part for name, part in batch.items() if name != "labels"})["logprobs"]


def test_a_padded_batch_answers_as_its_items_alone(verification: Verification, questions: QuestionBatches) -> None:
    together = logprobs(verification, questions([0, 1, 2]))
    alone = [logprobs(verification, questions([row])) for row in range(3)]
    assert not questions([0, 1, 2])["mask_NL"].all()
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert len(set(log_odds(together).tolist())) == 3


@torch.no_grad()
def test_its_answers_are_those_of_the_verifier(
    model: YesNoModel, question: Question, questions: QuestionBatches
) -> None:
    """Log-probabilities of yes and no at the first token of the answer, over the whole vocabulary."""
    stage = Verification(model, question.answer_token_ids()).eval()
    left, right = question.tokens_around_image(PROMPTS[1])
    embed = model.language_model.get_input_embeddings()
    parts = [embed(torch.tensor([left])), model.connector(RandomStates.tokens_NTD[[1]].float())]
    logits_V = model.language_model(inputs_embeds=torch.cat([*parts, embed(torch.tensor([right]))], 1)).logits[0, -1]
    tokenizer = question.tokenizer
    expected = logits_V.log_softmax(-1)[tokenizer.convert_tokens_to_ids(["yes", "no"])]
    found = logprobs(stage, questions([0, 1, 2]))
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=0)
    assert log_odds(found)[1].item() == pytest.approx((expected[0] - expected[1]).item(), abs=1e-5)


@torch.no_grad()
def test_logits_stand_before_the_tokens_to_be_said(model: YesNoModel, folder: Path) -> None:
    """As a computation of each caption alone has them, token by token."""
    instruction = Question(MINIATURE_INSTRUCTION, AutoTokenizer.from_pretrained(folder))
    batch = CaptionBatches(RandomStates(), instruction, CAPTIONS)([0, 1, 2])
    labels_NL = batch.pop("labels")
    logits_NLV = Alignment(model).eval()(**batch)["logits_NLV"]
    embed = model.language_model.get_input_embeddings()
    for row, caption in enumerate(CAPTIONS):
        left, right = instruction.tokens_around_image("")
        said = instruction.encode_answer(caption)
        image = model.connector(RandomStates.tokens_NTD[[row]].float())
        text = [embed(torch.tensor([tokens])) for tokens in (left, right + said)]
        every = model.language_model(inputs_embeds=torch.cat([text[0], image, text[1]], 1)).logits[0]
        before_said = every[-len(said) - 1 : -1]
        places = labels_NL[row] >= 0
        assert labels_NL[row, places].tolist() == said
        torch.testing.assert_close(logits_NLV[row, places], before_said, atol=1e-5, rtol=0)


def test_the_language_model_is_not_trained_in_stage_1(model: YesNoModel) -> None:
    trained = {name for name, parameter in Alignment(model).named_parameters() if parameter.requires_grad}
    assert trained == {f"model.connector.layers.{place}" for place in ("0.weight", "0.bias", "2.weight", "2.bias")}


def test_a_checkpoint_holds_every_tensor_once_and_is_loaded_whole(
    verification: Verification, questions: QuestionBatches, folder: Path, tmp_path: Path
) -> None:
    save_file(verification.state_dict(), tmp_path / "checkpoint.safetensors")  # refuses two names for one tensor
    batch, before = questions([0, 1, 2]), logprobs(verification, questions([0, 1, 2]))
    for parameter in verification.parameters():
        parameter.data.normal_()
    assert not torch.allclose(logprobs(verification, batch), before)
    verification.load_state_dict(load_file(tmp_path / "checkpoint.safetensors"))
    assert torch.equal(logprobs(verification, batch), before)


def test_a_checkpoint_that_lacks_a_tensor_is_not_loaded(verification: Verification) -> None:
    tensors = verification.state_dict()
    del tensors["model.language_model.model.embed_tokens.weight"]
    with pytest.raises(RuntimeError, match="embed_tokens"):
        verification.load_state_dict(tensors)


@pytest.mark.parametrize("has_head", [True, False])
def test_a_loaded_verifier_says_the_same(
    model: YesNoModel,
    question: Question,
    questions: QuestionBatches,
    tmp_path: Path,
    tiny_verifier: Path,
    has_head: bool,
) -> None:
    """Also one whose output layer is its own."""
    model.head = nn.Linear(32, 1) if has_head else None
    before = logprobs(Verification(model, question.answer_token_ids()), questions([0, 1]))
    config = LanguageModelVerifier.from_pretrained(tiny_verifier).config
    assert config.generator is not None
    made_for = config.generator.model_copy(update={"width": 8})
    config = config.model_copy(update={"generator": made_for, "has_head": has_head, "calibration": None})
    LanguageModelVerifier("tiny", config, model, question.tokenizer).save_pretrained(tmp_path)
    loaded = LanguageModelVerifier.from_pretrained(tmp_path, device=CPU)
    after = logprobs(Verification(loaded.model, loaded.question.answer_token_ids()), questions([0, 1]))
    torch.testing.assert_close(after, before, atol=0, rtol=0)
