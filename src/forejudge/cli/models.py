"""`forejudge models`: generators with a name, and pipelines that load from a folder or the hub."""

import json
from typing import Annotated

import typer

from forejudge.cli.common import echo, new_console


def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False) -> None:
    """List known models and supported pipelines."""
    from forejudge.generators import ARCHITECTURES, known_models

    if as_json:
        known = [spec.model_dump(mode="json") for spec in known_models().values()]
        echo(json.dumps({"models": known, "pipelines": list(ARCHITECTURES)}, indent=2))
        return
    from rich.table import Table

    table = Table("name", "description", "verifier")
    for spec in known_models().values():
        table.add_row(spec.name, spec.description, "included" if spec.verifier else "none; pass --verifier")
    console = new_console()
    console.print(table)
    console.print(f"Also any folder of a diffusers pipeline of class {', '.join(ARCHITECTURES)}, or its hub id,")
    console.print("as owner/model or owner/model@revision.")
