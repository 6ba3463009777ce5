"""The entry point: registers the commands and maps every failure to its documented exit code."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

import typer

from edgepack import distribution, interrupts
from edgepack.cli import help as panels
from edgepack.cli import output
from edgepack.errors import EdgepackError, UsageError
from edgepack.private_folder import PrivateFolder

#: Commands in the order of `edgepack --help`, groups last; each is a module of this package with a function `register`.
COMMANDS = (
    "init",
    "build",
    "train",
    "check",
    "compare",
    "verify",
    "push",
    "pull",
    "inspect",
    "doctor",
    "targets",
    "cache",
)


#: What decides about files and figures, shown by --version after edgepack's own version.
_RUNTIMES = ("ai-edge-litert", "ai-edge-quantizer", "tensorflow")


def _version(value: bool) -> None:
    if value:
        from edgepack._version import __version__, installed_version

        light = f" ({distribution.LIGHT})" if distribution.is_light() else ""
        output.out(f"edgepack {__version__}{light}")
        for name in _RUNTIMES:
            output.out(f"{name} {installed_version(name) or 'is not installed'}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and those of the runtimes."
    ),
) -> None:
    """Turn a trained TensorFlow model into a bundle that runs on edge hardware."""
    panels.require_command(context)


def command_line() -> typer.Typer:
    """Return the command line with every command."""
    app = typer.Typer(
        name="edgepack",
        cls=panels.Group,
        callback=_root,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=panels.SETTINGS,
    )
    for name in COMMANDS:
        import_module(f"edgepack.cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        with _own_temporary_folder():
            code = run(sys.argv[1:])
    except interrupts.Interrupted:
        code = interrupts.exit_code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 0
    sys.stderr.flush()
    # Python's own end restores the default handlers, with which a late signal has another exit code.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name.

    Returns:
        The exit code of docs/reference/exit-codes.md; 1 for a bug, whose traceback is printed on stderr.
    """
    as_json = "--json" in arguments
    command = next((word for word in arguments if not word.startswith("-")), "")
    warnings.showwarning = _warn  # type: ignore[assignment]
    try:
        distribution.require_one_version()
        result = typer.main.get_command(command_line()).main(arguments, prog_name="edgepack", standalone_mode=False)
    except EdgepackError as error:
        return _fail(error, as_json, command)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        page = f"edgepack {command} --help" if command in COMMANDS else "edgepack --help"
        return _fail(UsageError(text, hint=f"see `{page}`"), as_json, command)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # `edgepack ... | head` closed the pipe; without this, Python's flush at exit would fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        import traceback

        traceback.print_exc()
        output.err("this is a bug in edgepack; please report it with the lines above")
        return 1
    if interrupts.received():
        # Typer turns an interrupt into a result, always with the code of Ctrl-C.
        return _interrupted()
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    output.err("interrupted")
    return interrupts.exit_code()


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Put every temporary file of the command, of its children and tools into one folder, and remove that at the end.

    A child that is killed, or a signal between the creation of a folder and its protection, leaves nothing behind. The
    folder of a command that was killed is removed by a later command.
    """
    folder: PrivateFolder | None = None
    try:
        with interrupts.hold():
            interrupts.raise_interrupted()
            # Where no folder can be created, whoever needs a temporary file reports it.
            with suppress(OSError):
                folder = PrivateFolder()
                os.environ["TMPDIR"] = tempfile.tempdir = str(folder.path)
        yield
    finally:
        with interrupts.hold():
            if folder is not None:
                folder.close()
            interrupts.exit_at_once()


def _warn(message: Warning | str, *_: object) -> None:
    output.warn(str(message))


def _fail(error: EdgepackError, as_json: bool, command: str) -> int:
    if as_json:
        document = {"schema": 1, "command": command, "ok": False, "error": error.to_json(), "results": []}
        output.out(output.json_text(document))
    else:
        output.error(error)
    return error.exit_code
