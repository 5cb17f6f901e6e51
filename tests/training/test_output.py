"""What a run leaves: only what a verifier needs, and nothing of the machine it was made on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.training.tiny_run import TinyRun
from torch import float16

from forejudge.errors import InvalidRequest
from forejudge.progress import Progress
from forejudge.training.output import Output


@pytest.mark.parametrize("stage", ["aligned", "verified"])
def test_nothing_tells_where_it_was_made(request: pytest.FixtureRequest, tiny_run: TinyRun, stage: str) -> None:
    folder: Path = request.getfixturevalue(stage)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for place in (tiny_run.folder, (tiny_run.folder / "generator").resolve(), Path(__file__).parent):
        assert not [path for path in files if str(place).encode() in path.read_bytes()]


def test_a_finished_run_keeps_its_figures_and_no_checkpoints(verified: Path) -> None:
    assert {path.name for path in verified.iterdir()} == {
        "README.md", "connector.safetensors", "language_model", "metrics.json", "metrics.jsonl", "recipe.json",
        "trained_on.json", "verifier.json",
    }  # fmt: skip


def test_a_run_whose_models_have_moved_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The recipe in the folder does not say where they lay."""
    for name in ("first", "second"):
        shutil.copytree(tiny_run.language_model, tmp_path / name / "language_model")
    stopped: list[Progress] = []

    def stop(progress: Progress) -> None:
        stopped.append(progress)
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run.verify(tmp_path / "out", stop, language_model=str(tmp_path / "first" / "language_model"))
    left: list[Progress] = []
    tiny_run.verify(tmp_path / "out", left.append, language_model=str(tmp_path / "second" / "language_model"))
    assert [progress.step for progress in left] == [5, 6, 7, 8, 9, 10]


def test_another_model_is_another_recipe(tiny_run: TinyRun, tmp_path: Path) -> None:
    output = Output(tmp_path, tiny_run.generator)
    assert not output.begin(tiny_run.verify_recipe(language_model="owner/model"), {})
    with pytest.raises(InvalidRequest, match="begun with language_model = owner/model, this run has language_model"):
        output.begin(tiny_run.verify_recipe(), {})


def test_other_data_are_another_run(tiny_run: TinyRun, verified: Path) -> None:
    """Also where it is finished: what lies there was not trained on them."""
    output, recipe = Output(verified, tiny_run.generator), tiny_run.verify_recipe()
    begun_with = json.loads((verified / "trained_on.json").read_text())
    assert output.begin(recipe, begun_with)
    with pytest.raises(InvalidRequest, match=r"begun with training = \w{16}, this run has other"):
        output.begin(recipe, begun_with | {"training": "other"})


def test_weights_are_stored_as_the_recipe_says(tiny_run: TinyRun, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 1, "evaluate_every": 1, "stored_in": "float16", "loss": {"kind": "regression"}}
    folder = tiny_run.verify(tmp_path / "out", **changes)
    for file in ("connector", "head", "language_model/model"):
        tensors = load_file(folder / f"{file}.safetensors")
        assert {tensor.dtype for name, tensor in tensors.items() if not name.endswith("_D")} == {float16}
