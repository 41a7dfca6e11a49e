"""Components of one's own to begin with: a complete file of each kind, which `sslbench new` writes."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sslbench.core.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Template:
    """A file to begin with.

    Attributes:
        component: the class in it, or the value.
        commands: to try next; `{reference}` is what `module:Class` is then, `{module}` the name of the file.
    """

    component: str
    commands: tuple[str, ...]


def _run(what: str, recipe: str = "phantom") -> str:
    return f"sslbench run -r {recipe} {what} --labeled 20% --set schedule.iterations=20"


TEMPLATES = {
    "method": Template(
        "ICT", ('sslbench check method "{reference}"', _run('-m "supervised,{reference},{reference}[mix=0.5]"'))
    ),
    "loss": Template(
        "LogCoshDice",
        ('sslbench check method mt --loss "{reference}"', _run('-m mt -l "default,{reference},{reference}[scale=2]"')),
    ),
    "weighting": Template(
        "InverseRoot",
        ('sslbench check method "cps[weighting={reference}]"', _run('-m "cps,cps[weighting={reference}]"')),
    ),
    "network": Template("TwoStage", (_run('-m supervised,mt --set "network.name={reference}"'),)),
    "plugin": Template(
        "Position",
        (
            'sslbench check matrix mt --loss default --plugin "{reference}"',
            _run('-m mt --plugin "{reference}"'),
        ),
    ),
    "dataset": Template("Balls", ('sslbench prepare "{reference}"', _run("-m supervised,mt", "{module}"))),
    "protocol": Template("SURFACES", (_run('-m supervised,mt --set "protocol={reference}"'),)),
}


def template_text(kind: str, name: str) -> str:
    """The file of a kind, for a module called `name`.

    Raises:
        UnknownNameError: there is none of that kind.
    """
    if kind not in TEMPLATES:
        raise UnknownNameError("kind of component", kind, TEMPLATES)
    text = (Path(__file__).parent / f"{kind}.py").read_text(encoding="utf-8")
    return text.replace('"mine"', f'"{name}"')  # what a dataset or a protocol calls itself


def write_template(kind: str, name: str, folder: Path) -> Path:
    """Write the file of a kind as `<name>.py`, unless one of that name is there.

    Raises:
        UsageError: `name` cannot be that of a module, or its file is there or cannot be written.
        UnknownNameError: there is no such kind.
    """
    text = template_text(kind, name)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"'{name}' cannot be the name of a Python module", "letters, digits and _: my_method")
    path = folder / f"{name}.py"
    if not path.exists() and (taken := find_spec(name)) and taken.origin:
        raise UsageError(f"'{name}' is a module that Python knows already: {taken.origin}", "choose another name")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path.name} is there and stays as it is", "choose another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return path


def next_commands(kind: str, name: str) -> list[str]:
    """Commands that try the file of a kind, called `<name>.py`, and then show its table."""
    chosen = TEMPLATES[kind]
    commands = [*chosen.commands, "sslbench report"]
    return [
        command.replace("{reference}", f"{name}:{chosen.component}").replace("{module}", name) for command in commands
    ]
