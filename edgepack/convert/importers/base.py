"""The interface of an importer, and the services that a conversion offers to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from edgepack.child import ChildCrash, ChildException, ChildMemory, ChildTimeout, JobCall, Worker, limit_hint
from edgepack.convert.model import ConvertOptions, FloatModel
from edgepack.digests import sha256
from edgepack.errors import ConversionError

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgepack.convert.original import Original

R = TypeVar("R")

#: Name of the file in a conversion's log folder.
LOG_NAME = "edgepack-conversion.log"

#: Bytes of a file that `Importer.recognizes` gets.
HEAD_BYTES = 64

#: Samples of the user that are compared after conversion, besides the random inputs.
_CHECKED_SAMPLES = 4


@dataclass(frozen=True)
class Conversion:
    """One conversion: the model file, the user's options and the child process to work in.

    Attributes:
        path: The model file or folder.
        source_format: Id of the importer.
        worker: Child process; TensorFlow stays loaded in it.
        options: The user's options.
        timeout: Seconds until the child is killed.
        log_dir: Folder for the child's log when the conversion fails; None to report only its end, in the error.
        samples: The user's samples by input name, with the batch dimension.
    """

    path: Path
    source_format: str
    worker: Worker
    options: ConvertOptions
    timeout: float = 900
    log_dir: Path | None = None
    samples: "Sequence[Mapping[str, npt.NDArray[Any]]]" = ()

    def run(self, call: JobCall[R]) -> R:
        """Run a job in the child process.

        Raises:
            EdgepackError: The job raised it.
            ConversionError: The child failed; the message names the file, the details hold the end of the log, and
                `crashed` where the process ended by itself.
        """
        what = f"'{self.path}' ({self.source_format})"
        other_form = "another form of the model (SavedModel, .keras)"
        known: dict[str, Any] = {}
        try:
            return self.worker.call(call, timeout=self.timeout)
        except ChildTimeout as crash:
            message = f"converting '{self.path}' exceeded the time limit of {self.timeout:g} seconds and was stopped"
            hint = "raise the limit with --timeout, or convert on a faster machine and use the resulting .tflite"
            tail = crash.log_tail
        except ChildMemory as crash:
            message, hint, tail = f"converting {what} failed: {crash.reason}", limit_hint(crash), crash.log_tail
        except ChildException as crash:
            message, hint, tail = f"converting {what} failed: {crash.reason}", f"try {other_form}", crash.log_tail
        except ChildCrash as crash:
            message = f"the converter's process crashed while converting {what}: {crash.reason}"
            hint = f"this is a fault of the converter with this model; try {other_form}"
            # SIGKILL comes from outside: another way of converting would give a file that depends on it.
            tail, known = crash.log_tail, {} if "SIGKILL" in crash.reason else {"crashed": True}
        except ConversionError as error:
            tail = str(error.details.pop("log", ""))
            if not tail:
                raise
            message, hint, known = error.message, error.hint, error.details
        hint, details = _write_log(tail, hint, self.log_dir)
        raise ConversionError(message, hint=hint, details={**known, **details})

    def with_tensorflow(self, load: "Callable[[Path, ConvertOptions], Original]") -> FloatModel:
        """Convert with TensorFlow in the child: load, trace with static shapes, freeze, convert, compare.

        The .tflite has the original's weights, and its outputs agree with the original's to 1e-4 of each output's
        largest absolute value.

        Args:
            load: Loads the file in the child; a function at module level or a partial of one, because it is pickled.

        Raises:
            ModelFileError: The file is broken.
            UsageError: The options name an input or a signature that does not exist.
            ConversionError: The model cannot be loaded or converted, or its outputs changed.
        """
        from edgepack.convert.child import CONVERT

        samples = [dict(sample) for sample in self.samples[:_CHECKED_SAMPLES]]
        try:
            tflite, difference, notes, arithmetic = self.run(CONVERT.call(load, self.path, self.options, samples))
        except ConversionError as crash:
            if not crash.details.get("crashed"):
                raise
            # TensorFlow ends the process on some graphs; another way gives it another graph, in a new process.
            try:
                call = CONVERT.call(load, self.path, self.options, samples, freeze=False)
                tflite, difference, notes, arithmetic = self.run(call)
            except ConversionError:
                raise crash from None
            notes.insert(0, "converted by TFLiteConverter's documented call, because the converter crashed before")
        return FloatModel(
            tflite,
            self.source_format,
            quantized=False,
            checked=difference,
            notes=tuple(notes),
            arithmetic=arithmetic,
        )


class Importer(ABC):
    """Reads one input format.

    A module with an importer imports only the standard library and light modules of edgepack at its top: the registry
    imports all importers to find the one for a file.

    Attributes:
        id: Name of the entry point; `source_format` of the result and in JSON.
        title: The format with its article, for messages: `a Keras archive (.keras)`.
        suffixes: Usual file name suffixes, lower case. The content decides; of two importers that recognize a file, the
            one with its suffix is preferred.
        trainable: True when `edgepack train` can continue training such a model.
        modules: Third-party modules that `convert` needs.
        extra: pip requirement that installs `modules`, such as `edgepack[onnx]`; empty when edgepack itself requires
            them.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    trainable: ClassVar[bool] = False
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    @property
    def needs_tensorflow(self) -> bool:
        """True when a conversion loads TensorFlow, which takes seconds."""
        return "tensorflow" in self.modules

    @property
    def fingerprint(self) -> str:
        """Identity for cache keys: it changes with the code of the module, which a plugin's version may not.

        A module in a package counts with every Python file of the package, because it may import any of them.
        """
        module = Path(getfile(type(self)))
        name = type(self).__module__
        # `a.b.c` is the file a/b/c.py, or a/b/c/__init__.py.
        depth = name.count(".") + (module.name == "__init__.py")
        files = sorted(module.parents[depth - 1].rglob("*.py")) if depth else [module]
        code = b"".join(sha256(file.read_bytes()).encode() for file in files)
        return f"{name}:{type(self).__qualname__} {sha256(code)}"

    @abstractmethod
    def recognizes(self, path: Path, head: bytes) -> bool:
        """Return whether a file or folder has this format, judged by its content.

        Args:
            path: An existing file or folder.
            head: The first 64 bytes of a file; empty for a folder.

        Raises:
            ModelFileError: It has nearly this format, or is damaged. The error is reported only when no other importer
                recognizes the file.
        """

    @abstractmethod
    def convert(self, conversion: Conversion) -> FloatModel:
        """Return the model as a float .tflite with static shapes.

        Raises:
            ModelFileError: The file is broken.
            UsageError: The options name an input or a signature that does not exist.
            ConversionError: The model contains code, has dynamic dimensions without a requested shape, or cannot be
                converted.
        """


def _write_log(tail: str, hint: str, log_dir: Path | None) -> tuple[str, dict[str, Any]]:
    """Write the end of the log to a file; return the hint that names the file, and the error's details."""
    details: dict[str, Any] = {"log_tail": tail.splitlines()[-40:]}
    if log_dir is None:
        return hint, details
    file = log_dir / LOG_NAME
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(tail + "\n", encoding="utf-8")
    except OSError:
        return hint, details
    return f"{hint}; the converter's log is in '{file}'", {**details, "log": str(file)}
