"""The `forejudge` command and `python -m forejudge`: Ctrl-C and SIGTERM end in one line, also while it is starting."""

import sys


def _terminate(number: int, frame: object) -> None:
    import signal

    from forejudge.errors import Terminated

    signal.signal(number, signal.SIG_IGN)  # launchers repeat it
    raise Terminated


def main() -> None:
    """Run the command line. Raises SystemExit when done."""
    try:
        import signal  # here, as importing takes time and nothing outside catches Ctrl-C

        signal.signal(signal.SIGTERM, _terminate)
        from forejudge.cli.app import main as run

        run()
    except KeyboardInterrupt as error:  # while modules are imported; commands report theirs
        terminated = type(error) is not KeyboardInterrupt
        sys.stderr.write(f"error: {'terminated' if terminated else 'interrupted'} before anything was written\n")
        sys.exit(143 if terminated else 130)


if __name__ == "__main__":
    main()
