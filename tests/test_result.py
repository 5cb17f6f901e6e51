"""Provenance of figures: enough to make them again, and nothing of the machine's folders."""

import os
import platform
import subprocess
import sys
from pathlib import Path

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


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, without the settings of this machine."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_marked_while_the_sources_have_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, notes = tmp_path / "src", tmp_path / "notes.txt"
    monkeypatch.setattr("forejudge.result.__file__", str(sources / "result.py"))
    sources.mkdir()
    assert _commit() == "unknown", "there is no repository yet"
    (sources / "result.py").write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--no-verify", "--message", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    notes.write_text("beside the sources")
    assert _commit() == head
    (sources / "result.py").write_text("2")
    assert _commit() == f"{head} with changes"
    (sources / "result.py").write_text("1")
    (sources / "new.py").write_text("")
    assert _commit() == f"{head} with changes"


def _commit() -> str:
    return provenance(torch.device("cpu"))["commit"]


def test_the_device_says_how_many_cores_and_threads_there_were() -> None:
    device = provenance(torch.device("cpu"))["device"]
    assert device == f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
