"""Program for torch.distributed.run: each process calls `verify`, as with a GPU of its own."""

import sys
from pathlib import Path

from tests.support.tiny_run import TinyRun

if __name__ == "__main__":
    run, out = TinyRun(Path(sys.argv[1])), Path(sys.argv[2])
    run.verify(out, early_stopping_patience=2)
