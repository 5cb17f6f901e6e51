"""Where and with what a figure or a weight was made."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from forejudge.result import package_versions


def provenance(device: torch.device) -> dict[str, str]:
    """Command, commit, device and versions, as plain text. Absolute paths are named by their last part."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "forejudge")  # as `python -m forejudge.cli` has it
    command = " ".join([program, *map(_without_parents, sys.argv[1:])])
    return {"command": command, "commit": _commit(), "device": _describe(device)} | package_versions()


def _without_parents(argument: str) -> str:
    """Where a file lay on the machine is nobody's affair; also of the value in --name=value."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


def _commit() -> str:
    """The commit of the sources, marked where they were changed since; "unknown" outside a repository."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if changed.stdout.strip() else commit


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{platform.machine()} GPU through MPS"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
