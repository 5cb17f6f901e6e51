import pytest

from forejudge.evaluation.task_figures import averages

PROMPTS = ["a", "a", "b", "c", "d", "e"]
TASKS = ["colors"] * 4 + ["single_object"] * 2


def test_micro_is_over_pictures_and_macro_over_tasks() -> None:
    figures = averages(PROMPTS, TASKS, [1, 1, 1, 0, 0, 0])
    estimates = {name: found["estimate"] for name, found in figures.items()}
    assert estimates == {"micro": 0.5, "macro": 0.375, "single_object": 0.0, "colors": 0.75}


def test_every_figure_lies_in_its_interval() -> None:
    for found in averages(PROMPTS, TASKS, [1, 1, 1, 0, 1, 0]).values():
        assert 0 <= found["low"] <= found["estimate"] <= found["high"] <= 1


def test_figures_are_the_same_each_time() -> None:
    outcome = [1, 0, 1, 0, 1, 0]
    assert averages(PROMPTS, TASKS, outcome) == averages(PROMPTS, TASKS, outcome)


def test_a_task_without_cases_has_no_figure() -> None:
    figures = averages(["a"], ["position"], [1.0])
    assert set(figures) == {"micro", "macro", "position"}
    assert figures["position"] == pytest.approx({"estimate": 1, "low": 1, "high": 1})
