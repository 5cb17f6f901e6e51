"""`forejudge label` and `forejudge caption`: rows, summaries, shards and refusals."""

import json
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from forejudge.candidates.store import CandidateStore
from forejudge.generators import load_architecture
from tests.support.command import CommandLine, refusal
from tests.support.tiny_preview import new_tiny_decoder, save_tiny_tower

LINES = ["a photo of a red circle", "two stars, somewhere"]


@pytest.fixture
def caption(forejudge: CommandLine, tiny_generator: Path) -> CommandLine:
    """`forejudge caption` with the tiny generator, in a folder with captions.txt."""
    Path("captions.txt").write_text("\n".join(LINES))
    arguments = ("--prompts", "captions.txt", "--captioner", "miniature", "--out", "out")
    return CommandLine(forejudge.capture, ("--generator", str(tiny_generator), *arguments))


def test_images_of_any_text_file_are_described(caption: CommandLine) -> None:
    outcome = caption("caption", "--candidates", "2", "--record", "hidden:1")
    assert outcome.status == 0, outcome
    table = CandidateStore(Path("out")).table()
    assert table["prompt"].to_pylist() == [line for line in LINES for _ in range(2)]
    assert all(said.endswith(".") and said not in LINES for said in table["caption"].to_pylist())
    assert set(table["observer_name"].to_pylist()) == {"miniature"}
    assert outcome.out == "4 captioned candidates are in out\n"


def test_every_block_is_recorded_where_all_are_asked_for(caption: CommandLine) -> None:
    assert caption("caption", "--record", "all").status == 0
    assert CandidateStore(Path("out")).settings.recorded == ("hidden:1", "hidden:2", "hidden:3", "hidden:4")


def test_an_unknown_captioner_is_refused(caption: CommandLine) -> None:
    assert "miniature" in refusal(caption("caption", "--captioner", "unknown"), 2)


PROMPTS = ["a photo of a red circle", "a photo of a blue square", "a photo of a red circle"]
ARGUMENTS = ("--prompts", "prompts.jsonl", "--evaluator", "geneval-miniature", "--out", "out", "--candidates", "3")


@pytest.fixture
def label(forejudge: CommandLine, tiny_generator: Path) -> CommandLine:
    """`forejudge label` with the tiny generator, in a folder with prompts.jsonl."""
    lines = []
    for prompt in PROMPTS:
        color, name = prompt.split()[-2:]
        include = [{"class": name, "count": 1, "color": color}]
        lines.append(json.dumps({"tag": "colors", "include": include, "prompt": prompt}))
    Path("prompts.jsonl").write_text("\n".join(lines))
    return CommandLine(forejudge.capture, ("--generator", str(tiny_generator), *ARGUMENTS))


def test_candidates_are_generated_labeled_and_counted(label: CommandLine) -> None:
    outcome = label("label", "--record", "hidden:1,hidden:2")
    assert outcome.status == 0, outcome
    table = CandidateStore(Path("out")).table()
    assert table["prompt"].to_pylist() == [prompt for prompt in PROMPTS for _ in range(3)]
    assert table["image_index"].to_pylist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    right = sum(table["correct"].to_pylist())
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["rows"], summary["correct"]) == (9, right / 9)
    assert outcome.out.splitlines() == [
        f"9 labeled candidates are in out, {right / 9:.1%} of them are correct",
        f"colors: 9, {right / 9:.1%}",
    ]
    states = load_file("out/states/00000.safetensors")
    assert {name: len(tensor) for name, tensor in states.items()} == {"hidden:1": 9, "hidden:2": 9}
    size = sum(tensor.nbytes for tensor in states.values())
    assert f"the states of all 9 rows take {size / 1e6:.1f} MB" in outcome.err


def test_image_features_and_previews_are_recorded(label: CommandLine, tiny_generator: Path) -> None:
    save_tiny_tower(Path("tower"))
    new_tiny_decoder(load_architecture(str(tiny_generator)).latent_channels).save_pretrained("tiny")
    outcome = label("label", "--record", "clip,preview", "--vision-tower", "tower", "--tiny-decoder", "tiny")
    assert outcome.status == 0, outcome
    states = load_file("out/states/00000.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in states.items()} == dict.fromkeys(
        ("clip", "preview"), (9, 16, 32)
    )


def test_a_command_can_be_the_evaluator(label: CommandLine) -> None:
    Path("evaluate.py").write_text(
        "import json, sys\n"
        "for line in map(json.loads, sys.stdin):\n"
        "    print(json.dumps({'correct': 'red' in line['prompt'], 'reason': line['metadata']['tag']}))\n"
    )
    assert label("label", "--evaluator", f"{sys.executable} evaluate.py").status == 0
    table = pq.read_table("out/rows/00000.parquet")
    assert table["correct"].to_pylist() == [True] * 3 + [False] * 3 + [True] * 3
    assert set(table["reason"].to_pylist()) == {"colors"}


def test_a_shard_says_that_others_are_left(label: CommandLine) -> None:
    first = label("label", "--candidates", "100", "--shard", "2/3")
    assert first.out == "shard 2/3 is done; of all 3 row blocks 2 are left to the other shards\n"
    assert not Path("out/summary.json").exists()


def test_a_command_that_fails_ends_the_run_in_one_line(label: CommandLine) -> None:
    line = refusal(label("label", "--evaluator", f"{sys.executable} -c 'exit(\"no detector\")'"), 1)
    assert "ended with status 1; its last line on stderr: no detector" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidates", "0"], "candidates = 0: Input should be greater than or equal to 1"),
        (["--candidates", "9" * 23], f"candidates = {'9' * 23}: Input should be less than or equal to 10000"),
        (["--batch-size", "-1"], "batch-size = -1: expected a whole number from 1 to 10000"),
        (["--seed", "-1"], "seed = -1: expected a whole number from 0 to 4294967295"),
        (["--shard", "3/2"], "shard '3/2': expected NUMBER/COUNT"),
        (["--record", "hidden:0"], "'hidden:0': expected hidden:K"),
        (["--record", "clip"], "name a folder or a hub id as vision_tower"),
        (["--record", "preview"], "name a folder or a hub id as vision_tower"),
        (["--record", "depth"], "'depth': expected hidden:K"),
        (["--evaluator", "nonesuch"], "unknown evaluator 'nonesuch'"),
        (["--prompts", "none.jsonl"], "none.jsonl cannot be read"),
        (["--prompts", "plain.txt"], "plain.txt, line 1: not a GenEval metadata line"),
        (["--dtype", "float3"], "dtype 'float3'"),
    ],
)
def test_what_cannot_be_labeled_is_refused_before_models_are_loaded(
    label: CommandLine, arguments: list[str], said: str
) -> None:
    Path("plain.txt").write_text("a red circle\n")
    assert said in refusal(label("label", *arguments, "--generator", "not looked for"), 2)
    assert not list(Path("out").glob("*"))


def test_a_prompt_that_is_too_long_is_refused_before_weights_are_read(label: CommandLine, tiny_generator: Path) -> None:
    copytree(tiny_generator, "generator", ignore=ignore_patterns("*.safetensors"))
    line = json.loads(Path("prompts.jsonl").read_text().splitlines()[0])
    Path("prompts.jsonl").write_text(json.dumps({**line, "prompt": "a red circle " * 200}))
    assert "prompts.jsonl, line 1: the prompt has" in refusal(label("label", "--generator", "generator"), 2)


def test_another_run_in_the_same_folder_is_refused(label: CommandLine) -> None:
    label("label")
    assert "begun with candidates = 3, this run has candidates = 4" in refusal(label("label", "--candidates", "4"), 2)
