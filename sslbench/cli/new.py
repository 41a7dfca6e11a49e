"""The command `sslbench new`: a component of one's own to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sslbench.core import registry


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"{', '.join(registry.KINDS)}.",
            show_default=False,
            autocompletion=lambda incomplete: [kind for kind in registry.KINDS if kind.startswith(incomplete)],
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the module: NAME.py.", show_default=False)],
) -> None:
    """Write a component of your own to begin with, complete and small, as NAME.py in this folder."""
    from sslbench.cli.templates import next_commands, write_template

    path = write_template(kind, name, Path.cwd())
    typer.echo(f"wrote {path.name}; next:")
    for command in next_commands(kind, name):
        typer.echo(f"  {command}")
