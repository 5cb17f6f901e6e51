"""`python -m forejudge`, for launchers that start modules."""

from forejudge.cli.app import main

if __name__ == "__main__":
    main()
