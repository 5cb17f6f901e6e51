"""Where the commands keep what torch.compile made, for the next start."""

import os
from pathlib import Path

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled() -> None:
    """In the user's cache folder, unless the variable names another; PyTorch's own place is a temporary one.

    Comes before anything is compiled. Where nothing can be written, that place has to do.
    """
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "forejudge" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(_VARIABLE, str(folder))
