"""The `forejudge` command and `python -m forejudge`: Ctrl-C and SIGTERM end in one line, also while it is starting."""

import signal
import sys

from forejudge.errors import Terminated


def _terminate(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # launchers repeat it
    raise Terminated


def main() -> None:
    """Run the command line. Raises SystemExit when done."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from forejudge.cli.app import main as run

        run()
    except KeyboardInterrupt as error:  # while modules are imported; commands report theirs
        terminated = isinstance(error, Terminated)
        sys.stderr.write(f"error: {'terminated' if terminated else 'interrupted'} before anything was written\n")
        sys.exit(143 if terminated else 130)


if __name__ == "__main__":
    main()
