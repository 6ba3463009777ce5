"""One call of the library: arguments in memory become what the pipeline reads, in a folder that the call removes."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edgepack.api.progress import shown
from edgepack.api.target_results import Entry
from edgepack.api.types import InputShapes, Labels, ModelLike, ProgressLike, SamplesLike, Size, Targets
from edgepack.errors import EdgepackError, UsageError
from edgepack.limits import parse_memory
from edgepack.pipeline.option_values import parse_input_shape
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.private_folder import PrivateFolder

if TYPE_CHECKING:
    from edgepack.samples import SampleSource

#: Longest name of a bundle that is taken from a model in memory.
_LONGEST = 80


class Call:
    """The temporary files and the progress of one call.

    Args:
        progress: See `edgepack.api.progress.shown`.

    Attributes:
        progress: Receives a sentence about each step.
    """

    def __init__(self, progress: ProgressLike = None) -> None:
        self.progress: Progress = silent
        self._shown = shown(progress)
        self._exit = ExitStack()
        self._folder: PrivateFolder | None = None
        #: What messages call a file that the caller never saw.
        self._names: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.progress = self._exit.enter_context(self._shown)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, EdgepackError):
            self.name_files(error)
        self._exit.close()

    @property
    def folder(self) -> Path:
        """A folder that exists until the call ends."""
        if self._folder is None:
            self._folder = PrivateFolder()
            self._exit.callback(self._folder.close)
        return self._folder.path

    def model(
        self, value: ModelLike, options: ModelOptions, *, name: str = "", trainable: bool = False
    ) -> tuple[Path, ModelOptions]:
        """Return the path of a model, saved when it is in memory, and the options to read it with.

        Args:
            value: The model.
            options: The caller's options.
            name: Name of the bundles, empty for the model's.
            trainable: Refuse a model that cannot be trained.

        Raises:
            UsageError: There is no such file, or the value is no model.
            EdgepackError: The model cannot be saved.
        """
        if isinstance(value, str | os.PathLike):
            return existing("", value), options
        own = name or str(getattr(value, "name", "") or "model")
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", own)[:_LONGEST].strip("._-") or "model"
        if isinstance(value, bytes | bytearray | memoryview):
            path = self.folder / f"{stem}.tflite"
            path.write_bytes(value)
        else:
            path = self._save(value, stem, options, trainable)
            # What is saved has one signature.
            options = replace(options, signature="")
        self._names[str(path)] = stem
        return path, options

    def _save(self, value: object, stem: str, options: ModelOptions, trainable: bool) -> Path:
        from edgepack.convert.live_model import is_live_model, save_live_model

        if not is_live_model(value):
            raise UsageError(
                f"expected a model, got {type(value).__name__}",
                hint="give the path of a .keras, .h5, .tflite or SavedModel, the bytes of a .tflite, a model of Keras "
                "or tf-keras, or a tf.Module",
            )
        self.progress(f"saving {stem}")
        return save_live_model(
            value,
            self.folder,
            stem,
            signature=options.signature,
            input_shapes=options.input_shapes,
            trainable=trainable,
        )

    def samples(self, value: SamplesLike | None, argument: str, limit: int | None = None) -> "SampleSource":
        """Return a source of samples: a text as it is, an object as one that reads itself.

        Args:
            value: The caller's argument; None for none.
            argument: Its name, for messages.
            limit: Most samples that are used, None for all.
        """
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        from edgepack.samples.objects import InMemorySamples

        return InMemorySamples(value, argument, self.folder, limit)

    def labels(self, value: Labels | None) -> Path | None:
        """Return the file of class names, written when they are in memory.

        Raises:
            UsageError: A name is no text, or it has several lines.
        """
        if value is None or isinstance(value, str | os.PathLike):
            return path_or_none(value)
        names = list(value)
        wrong = next((name for name in names if not isinstance(name, str) or len(name.splitlines()) != 1), None)
        if not names or wrong is not None:
            got = "nothing" if not names else repr(wrong)
            raise UsageError(
                f"labels: expected class names of one line each, got {got}",
                hint="give the names in the order of the model's classes, or a text file with one per line",
            )
        file = self.folder / "labels.txt"
        file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        self._names[str(file)] = "labels"
        return file

    def shown(self, path: Path) -> str:
        """Return the name of a model file for documents: its path, or the name of a model in memory."""
        return self._names.get(str(path), path.as_posix())

    def name_files(self, error: EdgepackError) -> None:
        """Replace paths of temporary files in an error by the names that the caller knows."""
        for path, name in self._names.items():
            error.message = error.message.replace(path, name)
            error.hint = error.hint.replace(path, name)
        error.args = (error.message,)


def existing(option: str, value: str | os.PathLike[str]) -> Path:
    """Return a path that exists.

    Raises:
        UsageError: It does not exist.
    """
    path = Path(value)
    if not path.exists():
        raise UsageError(
            f"{option + ': ' if option else ''}'{path}' does not exist",
            hint=f"relative paths start at the current folder, {Path.cwd()}" if not path.is_absolute() else "",
        )
    return path


def path_or_none(value: str | os.PathLike[str] | None) -> Path | None:
    """Return a path, None for none."""
    return None if value is None or value == "" else Path(value)


def writable_or_none(option: str, value: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of an output file, None for none.

    Raises:
        UsageError: Its folder does not exist.
    """
    path = path_or_none(value)
    if path is not None and not path.resolve().parent.is_dir():
        raise UsageError(f"{option}: the folder of '{path}' does not exist", hint="create it first")
    return path


def model_options(
    input_shape: InputShapes,
    signature: str,
    allow_code: bool,
    timeout: float,
    memory_limit: Size,
    no_cache: bool,
    cache: str = "",
) -> ModelOptions:
    """Return how a model is read.

    Raises:
        UsageError: A value has another form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    if isinstance(input_shape, Mapping):
        for name, sizes in input_shape.items():
            shape = tuple(sizes) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else ()
            if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
                raise UsageError(
                    f"input_shape: expected sizes such as (1, 224, 224, 3) for '{name}', got {sizes!r}",
                    hint="give every dimension, the batch first",
                )
            shapes[str(name)] = shape
    else:
        shapes = dict(map(parse_input_shape, [input_shape] if isinstance(input_shape, str) else input_shape))
    at_least("timeout", timeout, 1)
    memory = parse_memory(str(memory_limit), "memory_limit") if memory_limit else None
    if cache:
        from edgepack.remote_cache import shared_cache_url

        shared_cache_url(cache)
    return ModelOptions(
        shapes, signature, allow_code, float(timeout), cache=not no_cache, cache_url=cache, memory_limit=memory
    )


def at_least(option: str, value: Any, least: float, *, optional: bool = False, whole: bool = False) -> None:
    """Refuse a value that is no number or too small; the command line does this when it reads its arguments.

    Raises:
        UsageError: Names the option.
    """
    if optional and value is None:
        return
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
        number = "a whole number" if whole else "a number"
        raise UsageError(
            f"{option}: expected {number} of at least {least:g}, got {value!r}",
            hint="the documentation of the function has its options: help(edgepack.build)",
        )


def size_or_none(option: str, value: Size | None) -> int | None:
    """Return a size in bytes, None for none.

    Raises:
        UsageError: The value is no size.
    """
    from edgepack.project.values import size

    return None if value is None else size(option, value)


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one text or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(map(str, value))


@dataclass(frozen=True)
class Group:
    """Targets that are built for the same chips.

    Attributes:
        chip: Chip that was named with the targets (`hexagon@SM8550`), empty without.
        socs: Chips to compile for.
        targets: Target ids.
    """

    chip: str
    socs: tuple[str, ...]
    targets: tuple[str, ...]


def by_chip(targets: Targets, socs: tuple[str, ...]) -> list[Group]:
    """Return target ids by the chip that they name.

    Args:
        targets: `"edgetpu"`, `["cpu", "hexagon@SM8550"]`, `"all"`.
        socs: Chips of the targets that name none.

    Raises:
        UsageError: There is no target, or a target has no chips.
    """
    groups: dict[str, list[str]] = {}
    for text in texts(targets):
        target, at, chip = text.partition("@")
        if at:
            _require_chip(text, target, chip)
        groups.setdefault(chip, []).append(target)
    if not groups:
        raise UsageError("no target given", hint='give a target such as "edgetpu", or "all"')
    return [Group(chip, (chip,) if chip else socs, tuple(ids)) for chip, ids in groups.items()]


def in_order(entries: Sequence[Entry], targets: Targets) -> tuple[Entry, ...]:
    """Return results in the order in which their targets were requested."""
    wanted = texts(targets)

    def place(entry: Entry) -> int:
        names = (entry.name, "all") if entry.soc else (entry.target, "all")
        return next((position for position, text in enumerate(wanted) if text in names), len(wanted))

    return tuple(sorted(entries, key=place))


def _require_chip(text: str, target: str, chip: str) -> None:
    from edgepack.profiles.registry import get_target

    if not chip or target == "all" or not get_target(target).socs:
        raise UsageError(
            f"'{text}': expected a target with chips and one of them, such as hexagon@SM8550",
            hint=f"give '{target}'; `edgepack targets show {target}` lists its chips",
        )
