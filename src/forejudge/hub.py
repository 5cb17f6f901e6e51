"""Models by name: a folder, or `owner/model@REVISION` of the Hugging Face hub, loaded from its cache or downloaded."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from forejudge.checkpoint import first_line, quiet_libraries
from forejudge.errors import CheckpointError, ForejudgeError

# No .bin or .pt, which can run code when they are opened (`pipeline` has one exception), and no .py, which is code.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md")
_CARD = "README.md"


@dataclass(frozen=True)
class Source:
    """What was loaded: `model` is a folder or a hub id; of the hub, the revision asked for and the commit it led to."""

    model: str
    folder: Path
    revision: str | None = None
    commit: str | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.commit}" if self.commit else self.model


def split_revision(name: str) -> tuple[str, str | None]:
    """`owner/model@REVISION` as its two parts; without a revision it is None, and the hub's main is meant."""
    model, _, revision = name.partition("@")
    return model, revision or None


def is_hub_id(name: str) -> bool:
    """Whether this is spelt as `owner/model`, with a revision or without."""
    model, _ = split_revision(name)
    return model.count("/") == 1 and not model.startswith((".", "/")) and not model.endswith("/")


def public_model_name(model: str) -> str:
    """Return a hub id as it is, and of a folder its last part only: paths of this machine are private."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def check_name(name: str) -> None:
    """Raises CheckpointError for what is neither a folder nor spelt as a hub id; the hub is not asked."""
    if Path(name).is_dir():
        return
    if Path(split_revision(name)[0]).is_dir():
        raise CheckpointError(f"{name}: a folder has no revisions, name it without one")
    if not is_hub_id(name):
        raise CheckpointError(f"{name} is no folder, nor a hub id such as owner/model or owner/model@revision")


def fetch(name: str, files: Sequence[str] = MODEL_FILES, ignore_patterns: Sequence[str] = ()) -> Source:
    """A folder as it is; of a hub id the files that match, from the cache where they are there, else downloaded.

    Without a network, or with HF_HUB_OFFLINE set, the cache has to do. Raises CheckpointError, which says what would.
    """
    check_name(name)
    if Path(name).is_dir():
        return Source(name, Path(name))
    model, revision = split_revision(name)
    with _download_errors(name), quiet_libraries():
        folder = huggingface_hub.snapshot_download(
            model, revision=revision, allow_patterns=list(files), ignore_patterns=list(ignore_patterns)
        )
    return Source(model, Path(folder), revision, Path(folder).name)


def local_folder(name: str) -> Path:
    """A model's folder: as it is, or downloaded by its hub id. Raises CheckpointError where neither is to be had."""
    return fetch(name).folder


def card_license(name: str) -> str | None:
    """What the front matter of a model's own card says; None where it says nothing, or no card is to be had."""
    model, revision = split_revision(name)
    try:
        local = Path(name) / _CARD if Path(name).is_dir() else None
        card = local or huggingface_hub.hf_hub_download(model, _CARD, revision=revision)
        license = (huggingface_hub.metadata_load(card) or {}).get("license")
    except Exception:  # of many kinds: no network, no card, no YAML in it; none of them stops anybody
        return None
    return str(license) if license else None


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turn what can go wrong between here and the hub into one line. Whole files stay in the cache, others are gone."""
    model, revision = split_revision(name)
    try:
        yield
    except ForejudgeError:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{name} was being downloaded; the same command goes on with what is missing") from None
    except GatedRepoError:
        reason = f"agree to its terms at {constants.ENDPOINT}/{model}, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or shows it to others only: check its name, or log in with `hf auth login`"
    except RevisionNotFoundError:
        reason = f"it has no revision {revision}"
    except LocalEntryNotFoundError:
        cause = "HF_HUB_OFFLINE is set" if huggingface_hub.is_offline_mode() else "the hub cannot be reached"
        reason = f"{cause}, and {constants.HF_HUB_CACHE} does not hold all of it: load it once with a network"
    except OSError as error:
        is_disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = f"{constants.HF_HUB_CACHE} is full: make room there, or name another disk's folder as HF_HOME"
        reason = advice if is_disk_full else _download_failed(error)
    except Exception as error:  # the hub client's network library has a tree of its own
        reason = _download_failed(error)
    else:
        return
    raise CheckpointError(f"{name} cannot be loaded: {reason}")


def _download_failed(error: Exception) -> str:
    return f"the download broke off ({first_line(error)}); try again, what came whole is kept"
