from typing import Any

import pytest
from tests.cli.study_figures import estimated, study_figures

from forejudge.cli.figure_tables import print_variants


@pytest.fixture
def heading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The first line of a study's table on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "250")

    def printed(**variants: dict[str, Any]) -> str:
        print_variants(study_figures(**variants))
        return next(line for line in capsys.readouterr().out.splitlines() if "verifier" in line)

    return printed


def test_what_a_study_varies_is_told_with_each_variant(heading: Any) -> None:
    assert "language model parameters" in heading(small={}, large={"language_model_parameters": 1_234_567})
    assert "best of 1" in heading(own={}, other={"best_of_1": estimated(0.4)})


def test_what_all_variants_have_in_common_takes_no_column(heading: Any) -> None:
    columns = heading(one={"best_of_8": estimated(0.7)}, other={})
    assert "best of 8" in columns
    assert "auroc" in columns  # alike, but by chance
    for common in ("reads", "language model parameters", "generator fingerprint", "best of 1", "perfect judge"):
        assert common not in columns
