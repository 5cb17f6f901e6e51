"""What `forejudge generate` refuses, each with one line that says why."""

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.command import CommandLine, refusal
from tests.tiny import save_tiny_generator

LONG_PROMPT = "a red circle " * 110


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no prompt"),
        (["x", "--n", "0"], "n = 0"),
        (["x", "--n", "-2"], "n = -2"),
        (["x", "--max-n", "0"], "max_n = 0"),
        (["x", "--budget-ms", "-5"], "budget_ms = -5"),
        (["x", "--budget-ms", "nan"], "budget_ms = nan"),
        (["x", "--until", "1.5"], "until = 1.5"),
        (["x", "--images-per-prompt", "0"], "images-per-prompt = 0"),
        (["x", "--seeds", "1,two"], "seeds = '1,two'"),
        (["x", "--seeds", ""], "seeds = ''"),
        (["x", "--seeds", "1,2", "--seed", "3"], "seed would change nothing"),
        (["x", "--seeds", "1,2", "--images-per-prompt", "2"], "seeds stand for one image"),
        (["x", "--all", "--top-k", "2"], "all finishes every candidate"),
        (["x", "--prompts", "file.txt"], "prompt cannot go with --prompts"),
        (["--prompts", "file.txt", "--all"], "all cannot go with --prompts"),
        (["--prompts", "file.txt", "--top-k", "2"], "top-k cannot go with --prompts"),
    ],
)
def test_contradictions_are_refused_before_models_are_loaded(
    forejudge: CommandLine, arguments: list[str], said: str
) -> None:
    refused = forejudge("generate", *arguments, "--generator", "not looked for", "--verifier", "not looked for")
    assert said in refusal(refused, 2)
    assert not Path("forejudge-out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "the prompt is empty"),
        (["  "], "the prompt is empty"),
        ([LONG_PROMPT], "would be cut: ' a red circle"),
        (["x", "--budget-ms", "0.001"], "budget_ms = 0.001 is too small: on this device one candidate"),
        (["x", "--steps", "0"], "steps = 0"),
        (["x", "--guidance-scale", "-1"], "guidance_scale = -1"),
        (["x", "--height", "50"], "64 x 50 pixels"),
        (["x", "--top-k", "0"], "top_k = 0"),
        (["x", "--batch-size", "0"], "batch_size = 0"),
        (["x", "--seeds", "1,-2"], "seeds must be"),
        (["x", "--seeds", "1,2", "--n", "3"], "n = 3 contradicts the 2 seeds"),
        (["x", "--device", "abacus"], "device 'abacus'"),
        (["x", "--dtype", "float3"], "dtype 'float3'"),
    ],
)
def test_what_the_models_cannot_serve_is_refused(generate: CommandLine, arguments: list[str], said: str) -> None:
    assert said in refusal(generate("generate", *arguments), 2)


def test_unknown_models_are_refused(generate: CommandLine, tiny_verifier: Path) -> None:
    unknown = CommandLine(generate.capture)
    assert "'nonesuch'" in refusal(unknown("generate", "x", "--generator", "nonesuch"), 2)
    arguments = ("--generator", "nonesuch", "--verifier", tiny_verifier)
    assert "unknown generator 'nonesuch'" in refusal(unknown("generate", "x", *arguments), 2)
    assert "unknown verifier 'nonesuch'" in refusal(generate("generate", "x", "--verifier", "nonesuch"), 2)


@pytest.mark.parametrize("change", ["missing", "truncated"])
@pytest.mark.parametrize(
    "file",
    [
        "generator/model_index.json",
        "generator/transformer/diffusion_pytorch_model.safetensors",
        "generator/text_encoder/model.safetensors",
        "generator/vae/diffusion_pytorch_model.safetensors",
        "verifier/verifier.json",
        "verifier/connector.safetensors",
        "verifier/language_model/model.safetensors",
    ],
)
def test_broken_folder_is_named(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path, file: str, change: str
) -> None:
    shutil.copytree(tiny_generator, "generator")
    shutil.copytree(tiny_verifier, "verifier")
    if change == "missing":
        Path(file).unlink()
    else:
        Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])
    line = refusal(forejudge("generate", "x", "--generator", "generator", "--verifier", "verifier"), 1)
    assert str(Path(file).parent) in line


def test_verifier_of_another_generator_is_refused(generate: CommandLine, tiny_verifier: Path, tmp_path: Path) -> None:
    other = save_tiny_generator(tmp_path / "other", seed=0, blocks=3)
    command = CommandLine(generate.capture, ("--generator", str(other), "--verifier", str(tiny_verifier)))
    line = refusal(command("generate", "x"), 1)
    assert "num_blocks = 4" in line
    assert "num_blocks = 3" in line


def test_verifier_of_an_impossible_cut_is_refused(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path
) -> None:
    shutil.copytree(tiny_verifier, "verifier")
    config = json.loads(Path("verifier/verifier.json").read_text())
    Path("verifier/verifier.json").write_text(json.dumps(config | {"reads": "hidden:9"}))
    line = refusal(forejudge("generate", "x", "--generator", tiny_generator, "--verifier", "verifier"), 1)
    assert "9 blocks" in line
    assert "only 4" in line


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_unwritable_output_is_refused_before_models_are_loaded(forejudge: CommandLine, out: str) -> None:
    Path("file").write_text("in the way")
    line = refusal(forejudge("generate", "x", "--out", out, "--generator", "not looked for"), 1)
    assert f"{out} cannot be written" in line
    assert Path("file").read_text() == "in the way"
