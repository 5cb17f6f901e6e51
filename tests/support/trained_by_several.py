"""Run by torch.distributed.run: each process calls `verify`, as one that trains on a GPU of its own would."""

import sys
from pathlib import Path

from tests.support.tiny_run import TinyRun

if __name__ == "__main__":
    run, out = TinyRun(Path(sys.argv[1])), Path(sys.argv[2])
    run.verify(out, early_stopping_patience=2)
