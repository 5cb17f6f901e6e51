import json
from pathlib import Path

import pytest
from tests.folders import copied

from forejudge.errors import CheckpointError
from forejudge.report.contents import Contents, read_layers


def test_best_of_n_of_each_chooser_with_n_rising(contents: Contents):
    by_chooser = contents.figures.by_chooser()
    assert list(by_chooser)[:2] == ["hidden", "clip"]
    assert list(by_chooser)[-2:] == ["random", "perfect judge"]
    assert all([row.n for row in rows] == [1, 2, 4] for rows in by_chooser.values())


def test_figures_of_other_settings_are_refused(evaluation: Path, tmp_path: Path):
    folder = copied(evaluation, tmp_path / "copy")
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"evaluator": "dice"}))
    with pytest.raises(CheckpointError, match="is of another evaluation"):
        Contents.read(folder)


def test_layers_come_with_cuts_rising(tmp_path: Path):
    path = tmp_path / "study.json"
    reached = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    variants = {reads: {"reads": reads, "best_of_8": reached} for reads in ("hidden:12", "latent", "hidden:4")}
    path.write_text(json.dumps({"variants": variants, "steps": 5}))
    assert [layer.cut for layer in read_layers(path)] == [4, 12]


@pytest.mark.parametrize(("text", "complaint"), [("{", "the file: "), ("{}", "variants: Field required")])
def test_a_study_that_is_none_is_refused(text: str, complaint: str, tmp_path: Path):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=complaint):
        read_layers(path)
