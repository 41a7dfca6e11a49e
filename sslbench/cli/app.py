"""The commands in one application, and its entry point. What is heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from sslbench import __version__
from sslbench.cli import console, streams
from sslbench.cli.bench import bench
from sslbench.cli.bundle import bundle
from sslbench.cli.cancel import cancel
from sslbench.cli.demo import demo
from sslbench.cli.diff import diff
from sslbench.cli.evaluate import evaluate, predict
from sslbench.cli.export import export
from sslbench.cli.importing import import_
from sslbench.cli.inspect import audit, check, doctor, list_, show
from sslbench.cli.new import new
from sslbench.cli.options import flag
from sslbench.cli.power import power
from sslbench.cli.prepare import prepare
from sslbench.cli.published import published
from sslbench.cli.report import report
from sslbench.cli.run import run, task, validate, worker
from sslbench.cli.status import status
from sslbench.cli.upkeep import clean, merge
from sslbench.cli.verify import verify
from sslbench.core.errors import SSLBenchError
from sslbench.core.version import code_state

app = typer.Typer(
    name="sslbench",
    help="Benchmark semi-supervised medical image segmentation: prepare data, run a grid of jobs, report the table.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: errors of ours and of the command line become one line, a hint and an exit code."""
    debug = _take_debug()
    with streams.standard_streams():
        code = streams.end_of_results(_run(debug))
    sys.exit(code)


def _run(debug: bool) -> int:
    """Run the command, say what went wrong, and return the exit code."""
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = console.warn
            code = app(prog_name="sslbench", standalone_mode=False)
    except SSLBenchError as error:
        if debug:
            raise
        return _failed(error.message, error.hint, error.exit_code)
    except typer.Abort:
        return 130
    except streams.ReaderLeft:
        return streams.READER_LEFT
    except OSError as error:
        if debug:
            raise
        return _failed(f"{error.filename or 'the system'}: {error.strerror or error}", "", 1)
    except Exception as error:
        if (told := _typers_error(error)) is not None:
            return told
        if debug:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _failed(reason, "a bug in sslbench: --debug shows where", 1)
    return code if isinstance(code, int) else 0


def _take_debug() -> bool:
    """Take `--debug` off the line, wherever it stands: so every command knows the option."""
    debug, kept = False, []
    for argument in sys.argv:
        if argument in ("--debug", "--no-debug"):
            debug = argument == "--debug"
        else:
            kept.append(argument)
    sys.argv = kept
    return debug


def _failed(message: str, hint: str, code: int) -> int:
    console.error(message, hint)
    return code


def _typers_error(error: Exception) -> int | None:
    """Say an error of Typer's own, known by what it has: their classes moved between its versions. None: no such."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        message = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "sslbench"
        return _failed(message[:1].lower() + message[1:].rstrip("."), f"{command} --help", error.exit_code)
    return None


def _version(asked: bool) -> None:
    if asked:
        print(f"sslbench {__version__} ({code_state()})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, flag("Print the version and the commit.", "--version", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, flag("Show a traceback where an error ends a command.", "--debug/--no-debug")] = False,
) -> None:
    pass


# In the order of the help.
_COMMANDS: tuple[Callable[..., None], ...] = (
    demo, prepare, audit, run, status, cancel, validate, list_, show, check, doctor, bench, evaluate, predict, report,
    diff, verify, bundle, import_, export, merge, clean, power, new,
)  # fmt: skip
for _command in _COMMANDS:
    app.command(_command.__name__.rstrip("_"))(_command)
app.command(hidden=True)(worker)
app.command(hidden=True)(task)
app.add_typer(published)
