import json

from forejudge.generators import known_models
from tests.support.command import CommandLine


def test_known_models_and_pipelines_are_listed(forejudge: CommandLine) -> None:
    outcome = forejudge("models")
    assert outcome.status == 0
    assert all(name in outcome.out for name in known_models())
    assert "SanaSprintPipeline" in outcome.out


def test_json_holds_the_same(forejudge: CommandLine) -> None:
    listed = json.loads(forejudge("models", "--json").out)
    assert [model["name"] for model in listed["models"]] == list(known_models())
    assert listed["models"][0]["pipeline"] == known_models()["miniature"].pipeline
    assert "SanaSprintPipeline" in listed["pipelines"]
