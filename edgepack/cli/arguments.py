"""Arguments and options that several commands share, and the conversion of their texts to values."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from edgepack.choices import Choice, parse_choice
from edgepack.cli import completion, output
from edgepack.cli import help as panels
from edgepack.cli.flags import checked_cache_url, flag_of, input_shapes
from edgepack.errors import UsageError
from edgepack.limits import parse_memory
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.project.option_table import BY_NAME


def option(
    panel: str,
    names: str,
    metavar: str,
    help: str,
    *,
    default: Any = None,
    show_default: bool | str = True,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """Return an option with a value.

    Args:
        panel: Panel of the help page.
        names: `-o, --out`.
        metavar: What the value is: `DIR`.
        help: Description.
        default: Default; None, an empty text and an empty list are not shown.
        show_default: Whether the default is shown, or the text shown for it.
        min: Smallest number.
        max: Largest number.
    """
    return typer.Option(
        default,
        *names.split(", "),
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        show_default=show_default,
        min=min,
        max=max,
    )


def flag(panel: str, name: str, help: str) -> Any:
    """Return an option without a value."""
    return typer.Option(False, name, help=help, rich_help_panel=panel)


def choice(
    panel: str,
    name: str,
    choices: type[Choice],
    metavar: str,
    help: str,
    *,
    default: Choice | None = None,
    show_default: bool | str = True,
) -> Any:
    """Return an option with a fixed set of values.

    The library's own check converts the text, so both refuse a wrong value with the same sentence.
    """
    return typer.Option(
        default,
        name,
        parser=partial(parse_choice, name, choices),
        autocompletion=completion.values_of(choices),
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        show_default=show_default,
    )


MODEL = typer.Argument(
    ..., metavar="MODEL", help="A .keras, .h5 or .tflite file, or a SavedModel folder.", show_default=False
)
SUBJECTS = typer.Argument(
    None,
    metavar="[MODEL|NAME]...",
    help="A .keras, .h5 or .tflite file, or a SavedModel folder; or names of models and cells (NAME/TARGET) of the "
    "project file. Without any, the whole project.",
    show_default=False,
    autocompletion=completion.model_names,
)
PROJECT = option(
    panels.RUN,
    "--project",
    "FILE",
    "Project file to work on.",
    show_default="edgepack.toml in this folder or above",
)
KEY = option(panels.SIGNATURE, "--key", "FILE", "Require a signature that this public key (PEM) verifies.")
IDENTITY = option(
    panels.SIGNATURE, "--identity", "ID", "Require a Sigstore signature of this identity; needs --issuer.", default=""
)
ISSUER = option(
    panels.SIGNATURE, "--issuer", "URL", "OpenID Connect provider that vouches for the identity.", default=""
)
VECTORS_TIMEOUT = option(
    panels.RUN, "--timeout", "SECONDS", "Time limit of the golden vectors of each bundle.", default=300.0, min=1.0
)
SUMMARY = option(panels.RUN, "--summary", "FILE", "Also write a summary in Markdown, as code hosts show it with a run.")
JOBS = option(
    panels.RUN,
    "--jobs",
    "N",
    "Cells of a project that are worked on side by side.",
    default=0,
    show_default="what the machine holds",
    min=0,
)
JSON, INPUT_SHAPE, ALLOW_CODE, SIGNATURE, TIMEOUT, MEMORY_LIMIT, PREPROCESS, RESIZE, NO_CACHE, CACHE_URL = (
    flag_of(BY_NAME[name])
    for name in (
        "json",
        "input-shape",
        "allow-code",
        "signature",
        "timeout",
        "memory-limit",
        "preprocess",
        "resize",
        "no-cache",
        "cache",
    )
)


def model_options(
    input_shape: list[str],
    signature: str | None,
    allow_code: bool,
    timeout: float,
    no_cache: bool,
    memory_limit: str | None = None,
    cache_url: str | None = None,
) -> ModelOptions:
    """Return the model options that the arguments describe.

    Raises:
        UsageError: An --input-shape that is not NAME=1,2,3, a --memory-limit that is no size, or a --cache that is no
            URL of a shared cache.
    """
    memory = parse_memory(memory_limit) if memory_limit else None
    shapes = input_shapes(input_shape)
    return ModelOptions(
        shapes,
        signature or "",
        allow_code,
        timeout,
        cache=not no_cache,
        cache_url=checked_cache_url(cache_url or ""),
        memory_limit=memory,
    )


def require_targets(targets: list[str]) -> list[str]:
    """Return the targets.

    Raises:
        UsageError: There is none, or one has a chip, which projects have there and models have in --soc.
    """
    if not targets:
        raise UsageError("no target given", hint="add -t TARGET, or -t all; `edgepack targets list` shows them")
    for target in targets:
        name, separator, chip = target.partition("@")
        if separator:
            raise UsageError(f"'{target}' is for projects", hint=f"of one model, give -t {name} --soc {chip}")
    return targets


def require_path(path: Path) -> Path:
    """Return a path that exists.

    Raises:
        UsageError: It does not exist.
    """
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    return path


def refuse_jobs(jobs: int) -> None:
    """Refuse `--jobs` for one model or bundle.

    Raises:
        UsageError: It was given.
    """
    if jobs:
        raise UsageError("--jobs is for projects", hint="`edgepack init` writes one")


def require_folder_of(option: str, path: Path | None) -> None:
    """Refuse an output file whose folder does not exist, before any work.

    Raises:
        UsageError: The folder does not exist.
    """
    if path is not None and not path.resolve().parent.is_dir():
        raise UsageError(f"{option}: the folder of '{path}' does not exist")


def progress(as_json: bool) -> Progress:
    """Return the receiver of progress messages: stderr, or nothing with --json."""
    return silent if as_json else output.progress


def notice(as_json: bool) -> Callable[[str], None]:
    """Return the receiver of messages that are shown even when stderr is not a terminal; nothing with --json."""
    return silent if as_json else lambda line: output.err(output.wrap(line))
