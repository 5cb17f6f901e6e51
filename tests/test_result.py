"""Where a figure was made: enough to make it again, and nothing of the machine's folders."""

import sys

import pytest
import torch

from forejudge.result import provenance


def test_a_command_is_told_without_the_machines_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "/opt/bin/forejudge train verify --labels /home/me/labels --out=/data/x/verifier a/b"
    monkeypatch.setattr(sys, "argv", command.split())
    made = provenance(torch.device("cpu"))
    assert made["command"] == "forejudge train verify --labels labels --out=verifier a/b"
    assert {"commit", "device", "torch", "diffusers", "transformers"} <= made.keys()


def test_a_command_run_as_a_module_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/forejudge/cli/__main__.py", "eval"])
    assert provenance(torch.device("cpu"))["command"] == "forejudge eval"
