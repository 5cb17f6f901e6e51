"""P(yes) of a tiny untrained Gemma 3, against a forward pass of one image at a time."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluators.image_text_to_text import BATCH_SIZE, ImageTextToText, VqaEvaluator
from forejudge.evaluators.loading import GenEvalModels, load_evaluator
from forejudge.prompts.prompt_file import PromptLine
from tests.support.image_text_model import CROPS, save_image_text_model

CPU = torch.device("cpu")
MERGES = (("y", "e"), ("ye", "s"), ("Y", "e"), ("Ye", "s"))
TEXT = 'Does this figure show "a red dog on two blue benches"? Please answer yes or no.Y'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_text_model(tmp_path_factory.mktemp("tiny") / "asked", TEXT, MERGES)


@pytest.fixture(scope="module")
def evaluator(folder: Path) -> VqaEvaluator:
    return VqaEvaluator.from_pretrained(str(folder), CPU)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """More than a batch, two of three wide."""
    colors = torch.randint(256, (BATCH_SIZE + 2, 3), generator=torch.Generator().manual_seed(0)).tolist()
    return [Image.new("RGB", (60 if n % 3 else 20, 20), tuple(color)) for n, color in enumerate(colors)]


def prompts_for(images: list[Image.Image]) -> list[str]:
    return ["a dog" if n % 2 else "a red dog on two blue benches" for n in range(len(images))]


def lines_of(prompts: list[str]) -> list[PromptLine]:
    return [PromptLine(prompt, "{}", f"line {n}") for n, prompt in enumerate(prompts, start=1)]


def computed_plainly(folder: Path, prompt: str, image: Image.Image) -> float:
    """One image, one forward pass, with no line of ours."""
    model = Gemma3ForConditionalGeneration.from_pretrained(folder).eval()
    processor = Gemma3Processor.from_pretrained(folder)
    asked = f'<bos><boi>Does this figure show "{prompt}"? Please answer yes or no.'
    inputs = processor(text=[asked], images=[[image]], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        probability_V = model(**inputs).logits[0, -1].softmax(0)
    return float(probability_V[processor.tokenizer.convert_tokens_to_ids(["yes", "Yes"])].sum())


def test_p_yes_is_that_of_a_plain_forward_pass(
    folder: Path, evaluator: VqaEvaluator, images: list[Image.Image]
) -> None:
    prompts = prompts_for(images)
    expected = [computed_plainly(folder, *each) for each in zip(prompts[:4], images[:4], strict=True)]
    assert evaluator.probabilities(prompts, images)[:4] == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == 4


def test_a_batch_says_what_single_images_say(
    evaluator: VqaEvaluator, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gemma3Processor, "images_kwargs", CROPS)
    prompts = prompts_for(images)
    alone = [evaluator.probabilities([prompt], [seen])[0] for prompt, seen in zip(prompts, images, strict=True)]
    assert evaluator.probabilities(prompts, images) == pytest.approx(alone, rel=1e-4)
    assert evaluator.probabilities([], []) == []


def test_an_image_is_right_from_one_half_on_and_the_reason_says_how_probable(
    evaluator: VqaEvaluator, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VqaEvaluator, "probabilities", lambda self, prompts, images: [0.5, 0.49])
    right, wrong = evaluator(lines_of(["a dog", "a dog"]), images[:2])
    assert (right.correct, right.reason) == (True, "P(yes) = 0.5000")
    assert (wrong.correct, wrong.reason) == (False, "P(yes) = 0.4900")


def test_it_is_loaded_by_its_spelling_and_named_by_its_weights(folder: Path, evaluator: VqaEvaluator) -> None:
    loaded = load_evaluator(f"vqa:{folder}", GenEvalModels(device="cpu"))
    assert isinstance(loaded, VqaEvaluator)
    assert loaded.name == evaluator.name
    assert evaluator.name.startswith("vqa (asked ")


def test_a_spelling_without_a_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="vqa needs its model: vqa:FOLDER"):
        load_evaluator("vqa")


def test_one_single_token_of_yes_is_enough(folder: Path, tmp_path: Path) -> None:
    only_capital = save_image_text_model(tmp_path / "capital", TEXT, (("Y", "e"), ("Ye", "s")))
    assert VqaEvaluator.from_pretrained(str(only_capital), CPU).probabilities(["a dog"], [Image.new("L", (20, 20))])


def test_a_tokenizer_without_a_single_token_of_yes_is_refused(tmp_path: Path) -> None:
    letters = save_image_text_model(tmp_path / "letters", TEXT)
    with pytest.raises(CheckpointError, match=r"letters \w{16} has no single token for any of yes, Yes"):
        VqaEvaluator.from_pretrained(str(letters), CPU)


def test_a_prompt_with_a_special_token_is_refused(evaluator: VqaEvaluator) -> None:
    evaluator.check(lines_of(["a dog"]))
    with pytest.raises(InvalidRequest, match=r"line 2: .* would read '<img>' in the prompt as a special token"):
        evaluator.check(lines_of(["a dog", "a <img>"]))


def test_no_number_is_no_answer(
    evaluator: VqaEvaluator, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> torch.Tensor:
        return torch.full((1, 60), torch.nan)

    monkeypatch.setattr(ImageTextToText, "first_token_logits", damaged)
    with pytest.raises(CheckpointError, match="returned NaN"):
        evaluator.probabilities(["a dog"], images[:1])
