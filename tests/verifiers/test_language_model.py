"""`LanguageModelVerifier`: its verdicts, its checkpoint, and generators that it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.generators import load_generator
from forejudge.generators.base import Architecture, Generator
from forejudge.hub import Source
from forejudge.miniature.plugin import QUESTION
from forejudge.types import NOISE, Candidates, Verdict, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.config import Calibration
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.question import Question
from research.miniature.language_model import new_language_model, qwen2_tokenizer
from tests.support.doubles import CPU, PROMPT
from tests.support.folders import copy_folder
from tests.support.hub_cache import COMMIT, add_to_cache

PROMPTS = ["a photo of a red circle", "a photo of three blue squares above a star, all of them small", "x"]
HIDDEN_NTD = torch.randn(3, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def question() -> Question:
    return Question(QUESTION, qwen2_tokenizer([QUESTION]))


@pytest.fixture(scope="module")
def model(question: Question) -> YesNoModel:
    torch.manual_seed(0)
    return YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 2)).eval()


def sides(question: Question, prompt: str) -> tuple[Tensor, Tensor]:
    left, right = question.tokens_around_image(prompt)
    return torch.tensor([left]), torch.tensor([right])


def singly(model: YesNoModel, question: Question) -> Tensor:
    return torch.cat([model(HIDDEN_NTD[[row]], *sides(question, prompt)) for row, prompt in enumerate(PROMPTS)])


@torch.no_grad()
def test_a_padded_batch_gives_what_single_calls_give(model: YesNoModel, question: Question) -> None:
    """Whatever stands in the padding."""
    rights = [sides(question, prompt)[1][0] for prompt in PROMPTS]
    longest = max(map(len, rights))
    assert len({len(right) for right in rights}) == 3
    mask_NL = torch.stack([(torch.arange(longest) < len(right)).long() for right in rights])
    left_NL = sides(question, PROMPTS[0])[0].expand(3, -1)
    for padding in (0, 5):
        padded = [torch.nn.functional.pad(right, (0, longest - len(right)), value=padding) for right in rights]
        together = model(HIDDEN_NTD, left_NL, torch.stack(padded), mask_NL)
        torch.testing.assert_close(together, singly(model, question), rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_padding_the_mask_changes_nothing(model: YesNoModel, question: Question) -> None:
    left_NL, right_NL = (side.expand(3, -1) for side in sides(question, PROMPTS[0]))
    masked = model(HIDDEN_NTD, left_NL, right_NL, torch.ones_like(right_NL))
    torch.testing.assert_close(model(HIDDEN_NTD, left_NL, right_NL), masked, rtol=0, atol=1e-5)


@torch.no_grad()
def test_it_is_the_language_model_s_own_answer(model: YesNoModel, question: Question) -> None:
    """Compare with the sequence left, image, right, at the first new token, over the whole vocabulary."""
    left_NL, right_NL = sides(question, PROMPTS[1])
    embed = model.language_model.get_input_embeddings()
    embeddings = torch.cat([embed(left_NL), model.connector(HIDDEN_NTD[:1]), embed(right_NL)], dim=1)
    expected = model.language_model(inputs_embeds=embeddings).logits[:, -1].log_softmax(-1)
    found = model(HIDDEN_NTD[:1], left_NL, right_NL)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.shape == (1, len(question.tokenizer))
    assert found.exp().sum().item() == pytest.approx(1)


@torch.no_grad()
def test_prompt_and_image_both_matter(model: YesNoModel, question: Question) -> None:
    answers = singly(model, question)
    other_prompt = model(HIDDEN_NTD[:1], *sides(question, PROMPTS[1]))
    other_image = model(HIDDEN_NTD[1:2], *sides(question, PROMPTS[0]))
    assert not torch.allclose(other_prompt, answers[:1], atol=1e-4)
    assert not torch.allclose(other_image, answers[:1], atol=1e-4)


def test_answers_are_float32_whatever_the_model_is(question: Question) -> None:
    half = YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 1)).to(torch.bfloat16)
    logprobs_NV = half(HIDDEN_NTD[:1].to(torch.bfloat16), *sides(question, PROMPTS[0]))
    assert logprobs_NV.dtype == torch.float32
    assert logprobs_NV.logsumexp(-1).item() == pytest.approx(0, abs=1e-5), "rounded to bfloat16 they do not add up to 1"


def test_a_shorter_dtype_rounds_weights_but_neither_positions_nor_statistics(question: Question) -> None:
    """Rotary frequencies rounded to bfloat16 are off by radians after 1000 tokens."""
    model = YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 1))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert any("inv_freq" in name for name in before)
    model.to(torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


CUT = prefix_stage(2)


@pytest.fixture(scope="module")
def verifier(tiny_verifier: Path) -> LanguageModelVerifier:
    return load(tiny_verifier)


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> Generator:
    return load_generator(str(tiny_generator), CPU, torch.float32)


@pytest.fixture
def folder(tiny_verifier: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return copy_folder(tiny_verifier, tmp_path / "verifier")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> LanguageModelVerifier:
    verifier = load_verifier(str(folder), CPU, dtype)
    assert isinstance(verifier, LanguageModelVerifier)
    return verifier


def changed(verifier: LanguageModelVerifier, **values: Any) -> LanguageModelVerifier:
    """Build the verifier with another config."""
    config = verifier.config.model_copy(update=values)
    return LanguageModelVerifier(verifier.name, config, verifier.model, verifier.tokenizer)


def candidates(count: int = 3, scale: float = 1.0) -> Candidates:
    hidden_NTD = torch.randn(count, 64, 64, generator=torch.Generator().manual_seed(0)) * scale
    return Candidates(tuple(range(count)), CUT, {CUT: hidden_NTD}, None)


def scored(verifier: LanguageModelVerifier, prompt: str = PROMPT) -> list[Verdict]:
    return verifier.score(prompt, candidates())


def test_a_verdict_holds_together(verifier: LanguageModelVerifier) -> None:
    verdicts = scored(verifier)
    assert len({verdict.score for verdict in verdicts}) == 3
    for verdict in verdicts:
        assert verdict.p_yes is not None
        assert verdict.p_no is not None
        assert verdict.log_odds == verdict.score
        ratio = torch.tensor(verdict.p_yes).log() - torch.tensor(verdict.p_no).log()
        assert verdict.log_odds == pytest.approx(ratio.item(), abs=1e-5)
        assert 0 < verdict.p_yes + verdict.p_no <= 1
        assert verifier.config.calibration is not None
        assert verdict.probability == verifier.config.calibration.probability(verdict.log_odds)


def test_probabilities_are_over_the_whole_vocabulary(verifier: LanguageModelVerifier) -> None:
    left, right = verifier.question.tokens_around_image(PROMPT)
    hidden_NTD = candidates().tensor(CUT)
    with torch.no_grad():
        log_p_NV = verifier.model(hidden_NTD, *(torch.tensor(side).expand(3, -1) for side in (left, right)))
    yes, no = verifier.question.answer_token_ids()
    for row, verdict in enumerate(scored(verifier)):
        assert verdict.p_yes == pytest.approx(log_p_NV[row, yes].exp().item(), rel=1e-5)
        assert verdict.p_no == pytest.approx(log_p_NV[row, no].exp().item(), rel=1e-5)


def test_candidates_do_not_see_each_other(verifier: LanguageModelVerifier) -> None:
    alone = [verifier.score(PROMPT, Candidates((row,), CUT, {CUT: candidates().tensor(CUT)[[row]]}, None))[0]
             for row in range(3)]  # fmt: skip
    scores = [verdict.score for verdict in scored(verifier)]
    assert scores == pytest.approx([verdict.score for verdict in alone], abs=1e-5)


def test_the_prompt_decides_too(verifier: LanguageModelVerifier) -> None:
    assert scored(verifier)[0].score != scored(verifier, "a photo of three stars")[0].score


def test_without_calibration_there_is_no_probability(verifier: LanguageModelVerifier) -> None:
    uncalibrated = changed(verifier, calibration=None)
    assert not uncalibrated.calibrated
    assert verifier.calibrated
    assert scored(uncalibrated)[0].probability is None
    assert scored(uncalibrated)[0].score == scored(verifier)[0].score


def test_states_beyond_its_dtype_are_refused(verifier: LanguageModelVerifier) -> None:
    """A verdict that is no number would be ranked somewhere."""
    with pytest.raises(InvalidRequest, match="use dtype bfloat16 or float32"):
        verifier.score(PROMPT, candidates(scale=float("inf")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saving_and_loading_changes_no_bit(
    verifier: LanguageModelVerifier, tiny_verifier: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    kept = load(tiny_verifier, dtype)
    kept.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", dtype)
    assert again.config == verifier.config
    assert scored(again) == scored(kept)
    for name, tensor in kept.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    for weights in ("connector.safetensors", "language_model/model.safetensors"):
        tensors = load_file(tmp_path / "saved" / weights)
        statistics = {name: tensors.pop(name).dtype for name in ("mean_D", "variance_D") if name in tensors}
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}
        assert set(statistics.values()) <= {torch.float32}  # float16 would not hold every variance


def test_it_reads_the_generator_it_was_made_for(verifier: LanguageModelVerifier, generator: Generator) -> None:
    assert verifier.check(generator) == []
    assert verifier.reads == {CUT}


OTHER_ARCHITECTURE = {
    "transformer": "FluxTransformer2DModel",
    "width": 96,
    "num_blocks": 20,
    "latent_channels": 32,
    "latent_size": 32,
    "text_width": 2304,
}


@pytest.mark.parametrize("field", Architecture.model_fields)
def test_another_architecture_is_refused_with_both_values(
    verifier: LanguageModelVerifier, generator: Generator, field: str
) -> None:
    made_for = generator.architecture.model_copy(update={field: OTHER_ARCHITECTURE[field]})
    with pytest.raises(MismatchError) as caught:
        changed(verifier, generator=made_for).check(generator)
    assert f"{field} = {OTHER_ARCHITECTURE[field]}" in str(caught.value)
    assert f"{field} = {getattr(generator.architecture, field)}" in str(caught.value)


def test_a_cut_behind_the_last_block_is_refused(verifier: LanguageModelVerifier, generator: Generator) -> None:
    with pytest.raises(MismatchError, match=r"reads after 5 blocks, but .* has only 4"):
        changed(verifier, reads="hidden:5").check(generator)
    assert changed(verifier, reads="hidden:4").check(generator) == []


def test_other_weights_are_a_warning_with_both_hashes(verifier: LanguageModelVerifier, generator: Generator) -> None:
    (warning,) = changed(verifier, generator_fingerprint="0123456789abcdef").check(generator)
    assert "0123456789abcdef" in warning
    assert generator.fingerprint in warning


def test_statistics_of_other_channels_are_refused_with_both_widths(
    verifier: LanguageModelVerifier, generator: Generator
) -> None:
    """A connector of another reading, put into a verifier by hand."""
    model = YesNoModel(Connector(16, 64), verifier.model.language_model)
    stranger = LanguageModelVerifier("stranger", verifier.config, model, verifier.tokenizer)
    with pytest.raises(MismatchError, match=r"reads tokens of width 16, but hidden:2 of .* has width 64"):
        stranger.check(generator)


def test_a_config_that_reads_behind_the_last_block_is_refused_when_it_is_loaded(folder: Path) -> None:
    path = folder / "verifier.json"
    path.write_text(path.read_text().replace('"reads": "hidden:2"', '"reads": "hidden:5"'))
    assert_refused(folder, "the verifier reads after 5 blocks, but the generator has only 4")


class TestCommit:
    """A verifier knows the commit of the hub that it was trained on, where there was one."""

    @pytest.fixture
    def from_the_hub(self, tiny_generator: Path) -> Generator:
        found = load_generator(str(tiny_generator), CPU, torch.float32)
        found.sources = (Source("owner/tiny", tiny_generator, "v1", COMMIT),)
        return found

    def test_it_is_kept(self, from_the_hub: Generator, generator: Generator) -> None:
        assert (
            LanguageModelVerifierConfig.from_generator(from_the_hub, "hidden:2").generator_source
            == f"owner/tiny@{COMMIT}"
        )
        assert LanguageModelVerifierConfig.from_generator(generator, "hidden:2").generator_source is None

    @pytest.mark.parametrize("other", ["owner/tiny@" + "f" * 40, f"owner/copy@{COMMIT}"])
    def test_another_one_is_a_warning_with_both(
        self, verifier: LanguageModelVerifier, from_the_hub: Generator, other: str
    ) -> None:
        (warning,) = changed(verifier, generator_source=other).check(from_the_hub)
        assert other in warning
        assert f"owner/tiny@{COMMIT}" in warning

    def test_where_either_is_unknown_there_is_none(
        self, verifier: LanguageModelVerifier, from_the_hub: Generator, generator: Generator
    ) -> None:
        assert changed(verifier, generator_source=f"owner/tiny@{COMMIT}").check(from_the_hub) == []
        assert changed(verifier, generator_source=f"owner/tiny@{COMMIT}").check(generator) == []
        assert changed(verifier, generator_source=None).check(from_the_hub) == []


def test_candidates_at_another_stage_are_no_use(verifier: LanguageModelVerifier) -> None:
    with pytest.raises(KeyError):
        verifier.score(PROMPT, Candidates((0,), NOISE, {NOISE: torch.zeros(1, 16, 8, 8)}, None))


@pytest.mark.parametrize(
    "missing",
    [
        "verifier.json",
        "connector.safetensors",
        "language_model",
        "language_model/config.json",
        "language_model/model.safetensors",
        "language_model/tokenizer.json",
    ],
)
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder.parent / "moved away")
    assert_refused(folder, str(folder / missing.split("/")[0]))


@pytest.mark.parametrize(
    "truncated",
    [
        "verifier.json",
        "connector.safetensors",
        "language_model/config.json",
        "language_model/model.safetensors",
        "language_model/tokenizer.json",
    ],
)
def test_a_truncated_file_is_named(folder: Path, truncated: str) -> None:
    content = (folder / truncated).read_bytes()
    (folder / truncated).write_bytes(content[: len(content) // 2])
    assert_refused(folder, str(folder / truncated.split("/")[0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("mean_D"), "tensor mean_D is missing"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "tensor extra is not part of the model"),
        (
            lambda tensors: tensors.update({"layers.0.weight": torch.ones(64, 32)}),
            "tensor layers.0.weight has shape (64, 32), expected (64, 64)",
        ),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, change: Callable[[dict], object], said: str) -> None:
    tensors = load_file(folder / "connector.safetensors")
    change(tensors)
    save_file(tensors, folder / "connector.safetensors")
    assert_refused(folder, f"{folder / 'connector.safetensors'}: {said}")


def test_a_missing_tensor_of_the_language_model_is_named(folder: Path) -> None:
    path = folder / "language_model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert_refused(folder, f"{folder / 'language_model'}: tensor model.norm.weight is missing")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"reads": "hidden:2"', '"reads": "hidden:0"', "reads"),
        ('"reads": "hidden:2"', '"cut": 2', "reads"),
        ("<image>", "image", "question"),
        ('"temperature": 0.05', '"temperature": -1', "calibration.temperature"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_its_field(folder: Path, old: str, new: str, field: str) -> None:
    path = folder / "verifier.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert_refused(folder, f"{path}: {field}")


def test_nothing_is_unpickled(folder: Path) -> None:
    """Pickled weights are no substitute for safetensors."""
    path = folder / "language_model" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    assert_refused(folder, f"{folder / 'language_model'} holds no .safetensors file, only pytorch_model.bin")


def test_code_in_a_folder_is_neither_run_nor_asked_about(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder / "language_model" / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    path.write_text(json.dumps(config))
    (path.parent / "code.py").write_text("from pathlib import Path\nPath(__file__).with_name('was_run').touch()\n")
    assert_refused(folder, f"{folder / 'language_model'} asks for code of its own (auto_map in config.json)")
    assert not list(folder.rglob("was_run"))
    assert capfd.readouterr() == ("", "")


def test_its_card_goes_with_it_to_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub alone is stood in for: what would be uploaded is a whole verifier."""
    (folder / "README.md").write_text("the card")
    uploaded = tmp_path / "uploaded"

    class Hub:
        def __init__(self, token: str | None) -> None:
            assert token == "secret"

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
            assert (repo_id, private, exist_ok) == ("me/verifier", True, True)
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
            copy_folder(Path(folder_path), uploaded)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert load(folder).push_to_hub("me/verifier", private=True, token="secret") == "https://hub/me/verifier/commit/1"
    assert (uploaded / "README.md").read_text() == "the card"
    assert scored(load(uploaded)) == scored(load(folder))


def test_a_cached_verifier_is_loaded_without_a_network(
    folder: Path, verifier: LanguageModelVerifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = add_to_cache(tmp_path / "hub", "owner/verifier", folder)
    for name, revision in (("owner/verifier", None), (f"owner/verifier@{COMMIT}", COMMIT)):
        found = load_verifier(name, CPU, torch.float32)
        assert found.name == name
        assert found.source == Source("owner/verifier", snapshot, revision, COMMIT)
        assert found.score(PROMPT, candidates()) == scored(verifier)
    with pytest.raises(CheckpointError, match="owner/verifier@v2 cannot be loaded: HF_HUB_OFFLINE is set"):
        load_verifier("owner/verifier@v2", CPU, torch.float32)


def test_the_frequencies_of_positions_are_never_rounded(tiny_verifier: Path) -> None:
    """A language model that is loaded in full and rounded later has them rounded too, and knows places less well."""
    buffers = load(tiny_verifier, torch.bfloat16).model.language_model.named_buffers()
    assert {buffer.dtype for name, buffer in buffers if "inv_freq" in name} == {torch.float32}


def test_an_unknown_verifier_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"unknown verifier 'minature'.*verifier\.json.*miniature"):
        load_verifier("minature", CPU, torch.float32)


def test_a_calibration_is_kept(verifier: LanguageModelVerifier) -> None:
    assert verifier.config.calibration == Calibration(temperature=0.05, bias=0.0)


def assert_refused(folder: Path, said: str) -> None:
    """In one line that begins with what was said."""
    with pytest.raises(CheckpointError, match=f"^{re.escape(said)}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
