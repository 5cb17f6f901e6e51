"""Models by name: a folder, or `owner/model@REVISION` of the Hugging Face hub, from its cache or downloaded."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from forejudge.checkpoint import first_line, quiet_libraries
from forejudge.errors import CheckpointError, ForejudgeError
from forejudge.files import exists, is_dir

# No .bin or .pt, which can run code when opened (PICKLED_WEIGHTS is the one exception), and no .py.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.md")
_CARD = "README.md"
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class Source:
    """Origin of a loaded model: a folder, or a hub id with the requested revision and the commit it resolved to."""

    model: str
    folder: Path
    revision: str | None = None
    commit: str | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.commit}" if self.commit else self.model


def split_revision(name: str) -> tuple[str, str | None]:
    """Split `owner/model@REVISION`; without a revision it is None, which means the hub's main branch."""
    model, _, revision = name.partition("@")
    return model, revision or None


def is_hub_id(name: str) -> bool:
    """Tell whether a name is spelled `owner/model`, with or without a revision."""
    model, _ = split_revision(name)
    return model.count("/") == 1 and not model.startswith((".", "/")) and not model.endswith("/")


def public_model_name(model: str) -> str:
    """Return a hub id as it is, and of a folder its last part only: paths of this machine are private."""
    return Path(model).resolve().name if is_dir(model) else model


def check_name(name: str) -> None:
    """Raise CheckpointError for a name that is neither a folder nor spelled as a hub id; the hub is not asked."""
    if is_dir(name):
        return
    if is_dir(split_revision(name)[0]):
        raise CheckpointError(f"{name}: a folder has no revisions, leave out the part after @")
    if exists(name):
        raise CheckpointError(f"{name} is a file: expected the folder that holds it, or a hub id such as owner/model")
    if not is_hub_id(name):
        raise CheckpointError(f"{name} is no folder, nor a hub id such as owner/model or owner/model@revision")


def fetch(name: str, files: Sequence[str] = MODEL_FILES, ignore_patterns: Sequence[str] = ()) -> Source:
    """Return a folder as it is; for a hub id, fetch the matching files from the cache or the hub.

    Without a network, or with HF_HUB_OFFLINE set, only the cache is used. Raises CheckpointError with a remedy.
    """
    check_name(name)
    if is_dir(name):
        return Source(name, Path(name))
    model, revision = split_revision(name)
    with _download_errors(name), quiet_libraries():
        folder = huggingface_hub.snapshot_download(
            model,
            revision=revision,
            allow_patterns=list(files),
            ignore_patterns=list(ignore_patterns),
            local_files_only=huggingface_hub.is_offline_mode(),  # versions before 2 ask the hub for a commit's files
        )
    return Source(model, Path(folder), revision, Path(folder).name)


def local_folder(name: str) -> Path:
    """Return the folder of a model, downloaded if it is a hub id. Raises CheckpointError."""
    return fetch(name).folder


def card_license(name: str) -> str | None:
    """Read the license from a model card's front matter; return None if there is no license or no card."""
    model, revision = split_revision(name)
    try:
        local = Path(name) / _CARD if is_dir(name) else None
        card = local or huggingface_hub.hf_hub_download(model, _CARD, revision=revision)
        license = (huggingface_hub.metadata_load(card) or {}).get("license")
    except Exception:  # no network, no card, no YAML: the license is a courtesy and never an error
        return None
    return str(license) if license else None


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turn any download problem into a one-line error. Complete files stay in the cache, partial ones do not."""
    model, revision = split_revision(name)
    try:
        yield
    except ForejudgeError:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{name} was being downloaded; the same command continues with the missing files"
        ) from None
    except GatedRepoError:
        reason = f"accept its terms at {constants.ENDPOINT}/{model}, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or it is private: check its name, or log in with `hf auth login`"
    except RevisionNotFoundError:
        reason = f"it has no revision {revision}: name a branch, a tag or a commit of {constants.ENDPOINT}/{model}"
    except HFValidationError:
        reason = "that is no name of a model: expected owner/model of letters, digits, '-', '_' and '.'"
    except LocalEntryNotFoundError:
        cause = "HF_HUB_OFFLINE is set" if huggingface_hub.is_offline_mode() else "the hub cannot be reached"
        reason = (
            f"{cause}, and {constants.HF_HUB_CACHE} does not hold all of it: load it once with a network connection"
        )
    except OSError as error:
        is_disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = f"{constants.HF_HUB_CACHE} is full: make room there, or set HF_HOME to a folder on another disk"
        if error.errno in _NOT_WRITABLE:
            advice = (
                f"{constants.HF_HUB_CACHE} cannot be written ({error.strerror}): make it writable, or set HF_HUB_CACHE "
                "to another folder"
            )
        reason = advice if is_disk_full or error.errno in _NOT_WRITABLE else _download_failed(error)
    except Exception as error:  # the hub client's network library has its own exception tree
        reason = _download_failed(error)
    else:
        return
    raise CheckpointError(f"{name} cannot be loaded: {reason}")


def _download_failed(error: Exception) -> str:
    return f"the download failed ({first_line(error)}): try again, complete files are kept"
