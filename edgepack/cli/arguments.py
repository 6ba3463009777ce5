"""Arguments and options that several commands share, and the conversion of their texts to values."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from edgepack.choices import Choice, Repair, SchemeChoice, parse_choice
from edgepack.cli import help as panels
from edgepack.cli import output
from edgepack.errors import UsageError
from edgepack.limits import TARGET_SECONDS, parse_memory
from edgepack.pipeline.option_values import parse_input_shape, parse_size
from edgepack.pipeline.options import ModelOptions, Progress, TargetOptions, silent


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
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        show_default=show_default,
    )


MODEL = typer.Argument(
    ..., metavar="MODEL", help="A .keras, .h5 or .tflite file, or a SavedModel folder.", show_default=False
)
TARGETS = option(panels.TARGET, "-t, --target", "ID", "Target to build for, or `all`; repeatable.", default=[])
JSON = flag(panels.RUN, "--json", "Print one JSON document on stdout.")
REQUIRE_FULL = flag(panels.TARGET, "--require-full", "Fail (exit 3) when an op stays on the host.")
INPUT_SHAPE = option(
    panels.MODEL,
    "--input-shape",
    "NAME=DIMS",
    "Shape of an input with unknown dimensions, such as image=1,224,224,3; repeatable.",
    default=[],
)
ALLOW_CODE = flag(panels.MODEL, "--allow-code", "Run Lambda layers and custom code of the model.")
SIGNATURE = option(
    panels.MODEL, "--signature", "NAME", "Signature of a SavedModel.", default="", show_default="serving_default"
)
TIMEOUT = option(
    panels.RUN,
    "--timeout",
    "SECONDS",
    "Time limit of the conversion, and then of each target; training is not counted.",
    default=TARGET_SECONDS,
    min=1.0,
)
MEMORY_LIMIT = option(
    panels.RUN,
    "--memory-limit",
    "SIZE",
    "Memory that each child process may hold, such as 8GB.",
    default="",
    show_default="3/4 of the machine's, at most 16 GiB",
)
SAMPLES = option(
    panels.DATA,
    "--samples",
    "SRC",
    "Representative samples: an .npz, an .npy, a folder of images or module:function.",
    default="",
)
EVALUATION = option(
    panels.DATA, "--eval", "SRC", "Samples to measure accuracy on; with labels, top-1 is measured.", default=""
)
PREPROCESS = option(
    panels.DATA,
    "--preprocess",
    "MEAN,STD|auto",
    "Normalization of pixels: input = (pixel - MEAN) / STD; auto takes the usual one with which labelled images are "
    "recognized best.",
    default="",
    show_default="the model's metadata or first ops, else 0,255",
)
SCHEME = choice(panels.ACCURACY, "--scheme", SchemeChoice, "SCHEME", "Quantization scheme.", default=SchemeChoice.AUTO)
VARIANT = option(
    panels.TARGET, "--variant", "ID", "Variant of the target; `edgepack targets show ID` lists them.", default=""
)
SOC = option(
    panels.TARGET,
    "--soc",
    "CHIP",
    "Chip to compile for, such as SM8550; the first one selects the variant; repeatable.",
    default=[],
)
SIMULATE = flag(
    panels.TARGET,
    "--simulate",
    "Run what was compiled for --soc on the vendor's simulator of the accelerator, and compare with the CPU.",
)
SIMULATE_SECONDS = option(
    panels.TARGET,
    "--simulate-seconds",
    "SECONDS",
    "About how long the simulation of one file takes; it decides how many samples are run.",
    default=60.0,
    min=1.0,
)
RUNTIME_VERSION = option(
    panels.TARGET,
    "--runtime-version",
    "VERSION",
    "Runtime version whose op versions are checked.",
    default=0,
    show_default="the newest",
)
REPAIR = choice(
    panels.TARGET, "--repair", Repair, "MODE", "Which rewrites of unsupported ops are applied.", default=Repair.EXACT
)
CUT_TAIL = flag(
    panels.TARGET, "--cut-tail", "Move unsupported final ops (ARG_MAX, SOFTMAX) into the loader as postprocessing."
)
NO_CACHE = flag(panels.RUN, "--no-cache", "Recompute every step and store nothing in the cache.")
CACHE_URL = option(
    panels.RUN,
    "--cache",
    "URL",
    "Cache that several machines share: s3://, gs://, az:// or file:///FOLDER; `off` for none.",
    default="",
    show_default="EDGEPACK_CACHE_URL",
)


def model_options(
    input_shape: list[str],
    signature: str,
    allow_code: bool,
    timeout: float,
    no_cache: bool,
    memory_limit: str = "",
    cache_url: str = "",
) -> ModelOptions:
    """Return the model options that the arguments describe.

    Raises:
        UsageError: An --input-shape that is not NAME=1,2,3, a --memory-limit that is no size, or a --cache that is no
            URL of a shared cache.
    """
    shapes = dict(map(parse_input_shape, input_shape))
    memory = parse_memory(memory_limit) if memory_limit else None
    if cache_url:
        from edgepack.remote_cache import shared_cache_url

        shared_cache_url(cache_url)
    return ModelOptions(
        shapes, signature, allow_code, timeout, cache=not no_cache, cache_url=cache_url, memory_limit=memory
    )


def target_options(
    variant: str, soc: list[str], runtime_version: int, require_full: bool, repair: Repair, cut_tail: bool = False
) -> TargetOptions:
    """Return the target options that the arguments describe."""
    return TargetOptions(variant, tuple(soc), runtime_version or None, require_full, repair, cut_tail)


def require_targets(targets: list[str]) -> list[str]:
    """Return the targets.

    Raises:
        UsageError: There is none.
    """
    if not targets:
        raise UsageError("no target given", hint="add -t TARGET, or -t all; `edgepack targets list` shows them")
    return targets


def require_path(path: Path) -> Path:
    """Return a path that exists.

    Raises:
        UsageError: It does not exist.
    """
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    return path


def require_folder_of(option: str, path: Path | None) -> None:
    """Refuse an output file whose folder does not exist, before any work.

    Raises:
        UsageError: The folder does not exist.
    """
    if path is not None and not path.resolve().parent.is_dir():
        raise UsageError(f"{option}: the folder of '{path}' does not exist")


#: Returns a size in bytes.
size = parse_size


def progress(as_json: bool) -> Progress:
    """Return the receiver of progress messages: stderr, or nothing with --json."""
    return silent if as_json else output.progress


def notice(as_json: bool) -> Callable[[str], None]:
    """Return the receiver of messages that are shown even when stderr is not a terminal; nothing with --json."""
    return silent if as_json else lambda line: output.err(output.wrap(line))
