"""Provenance of figures: enough to make them again, and nothing of the machine's folders."""

import sys

import pytest
import torch

from forejudge.result import provenance


def test_a_command_is_recorded_without_the_machines_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "/opt/bin/forejudge train verify --labels /home/me/labels --out=/data/x/verifier a/b"
    monkeypatch.setattr(sys, "argv", command.split())
    made = provenance(torch.device("cpu"))
    assert made["command"] == "forejudge train verify --labels labels --out=verifier a/b"
    assert {"commit", "device", "torch", "diffusers", "transformers"} <= made.keys()


@pytest.mark.parametrize(("package", "program"), [("forejudge", "forejudge"), ("research", "python -m research")])
def test_a_command_run_as_a_module_is_named_as_it_is_called(
    monkeypatch: pytest.MonkeyPatch, package: str, program: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/x/{package}/__main__.py", "eval"])
    assert provenance(torch.device("cpu"))["command"] == f"{program} eval"
