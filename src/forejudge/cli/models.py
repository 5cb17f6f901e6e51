"""`forejudge models`: what has a name, and what can be loaded from a folder or the hub."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False) -> None:
    """List the models that have a name and the pipelines that are supported."""
    from forejudge.generators import ARCHITECTURES, KNOWN_MODELS

    if as_json:
        known = [{"name": name, **asdict(model)} for name, model in KNOWN_MODELS.items()]
        typer.echo(json.dumps({"models": known, "pipelines": list(ARCHITECTURES)}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", "its verifier")
    for name, model in KNOWN_MODELS.items():
        table.add_row(name, model.description, "comes with it" if model.verifier else "none: give --verifier")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Also any folder or hub id of a diffusers pipeline of class {', '.join(ARCHITECTURES)}.")
