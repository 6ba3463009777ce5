"""Arguments and options that several commands share, and how their words become values."""

import os
import re
from pathlib import Path

import typer

from edgepack.choices import Repair
from edgepack.errors import UsageError
from edgepack.pipeline.options import ModelOptions, TargetOptions

MODEL = typer.Argument(..., help="A .keras, .h5 or .tflite file, or a SavedModel folder.", show_default=False)
TARGET = typer.Option([], "-t", "--target", help="Target id, or all; may be given several times.", show_default=False)
JSON = typer.Option(False, "--json", help="Print one JSON document on stdout.")
REQUIRE_FULL = typer.Option(False, "--require-full", help="Fail (exit 3) when an op stays on the host.")
INPUT_SHAPE = typer.Option(
    [], "--input-shape", help="NAME=1,224,224,3 for an input with open dimensions; repeatable.", show_default=False
)
ALLOW_CODE = typer.Option(False, "--allow-code", help="Run Lambda layers and custom code of the model.")
SIGNATURE = typer.Option("", "--signature", help="Signature of a SavedModel.", show_default=False)
VARIANT = typer.Option("", "--variant", help="Variant of the target (see edgepack targets show).", show_default=False)
SOC = typer.Option(
    [], "--soc", help="Chip such as SM8550; selects the variant, and what to compile for.", show_default=False
)
RUNTIME_VERSION = typer.Option(0, "--runtime-version", help="Runtime version to hold ops against.", show_default=False)
REPAIR = typer.Option(Repair.EXACT, "--repair", help="Which rewrites of unsupported ops are applied.")
CUT_TAIL = typer.Option(False, "--cut-tail", help="Leave refused last steps (ARG_MAX, SOFTMAX) to the loader.")
NO_CACHE = typer.Option(False, "--no-cache", help="Compute everything again and keep nothing.")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmg]i?)?b?)", re.IGNORECASE)
_UNITS = {
    f"{prefix}{form}{b}": (1024 if form else 1000) ** power
    for power, prefix in enumerate(("", "k", "m", "g"))
    for form in (("", "i") if prefix else ("",))
    for b in ("", "b")
}

TIMEOUT = typer.Option(900.0, "--timeout", help="Seconds that the conversion may take.", min=1.0)


def model_options(
    input_shape: list[str], signature: str, allow_code: bool, timeout: float, no_cache: bool
) -> ModelOptions:
    """Return the model options that the words mean.

    Raises:
        UsageError: An --input-shape that is not NAME=1,2,3.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in input_shape:
        name, separator, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not separator or not name or not shape or min(shape) < 1:
            raise UsageError(f"--input-shape: expected NAME=1,224,224,3, got '{text}'")
        shapes[name] = shape
    return ModelOptions(shapes, signature, allow_code, timeout, cache=not no_cache)


def target_options(
    variant: str, soc: list[str], runtime_version: int, require_full: bool, repair: Repair, cut_tail: bool = False
) -> TargetOptions:
    """Return the target options that the arguments mean."""
    return TargetOptions(variant, tuple(soc), runtime_version or None, require_full, repair, cut_tail)


def need_targets(targets: list[str]) -> list[str]:
    """Return the targets.

    Raises:
        UsageError: None was given.
    """
    if not targets:
        raise UsageError("no target given", hint="add -t TARGET, or -t all; `edgepack targets list` shows them")
    return targets


def need_path(path: Path) -> Path:
    """Return a path that exists.

    Raises:
        UsageError: It does not.
    """
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    return path


def size(option: str, text: str) -> int | None:
    """Return the bytes that a size means: `500KB`, `1MB`, `1.5MiB` or plain bytes; None for no text.

    KB, MB and GB are decimal, as file managers and stores count; KiB, MiB and GiB are powers of 1024.

    Raises:
        UsageError: The text is no size.
    """
    if not text:
        return None
    found = _SIZE.fullmatch(text.strip())
    count = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if count < 1:
        raise UsageError(f"{option}: expected a size such as 500KB, 1MB, 1MiB or 800000, got '{text}'")
    return count


def write_file(path: Path, text: str) -> None:
    """Write a file in one step.

    Raises:
        UsageError: The folder does not exist or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
