"""`python -m research`: errors on one line, as `forejudge` shows them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from research.__main__ import group


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["build", "--out", ""], 2, "error: "),
        (["study", "nonsense"], 2, "error: unknown study 'nonsense': expected one of "),
        (["build", "--only", "decoder"], 2, "error: unknown part 'decoder': expected one of world, "),
        (["build", "--only", "generator", "--device", "cpu"], 1, "autoencoder is missing: build the autoencoder first"),
        (["profile-plots", "none"], 1, "none/profile.json is missing"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(group, arguments, obj=arguments)
    assert result.exit_code == status, result
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
