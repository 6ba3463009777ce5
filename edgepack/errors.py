"""One tree of errors: what happened, what to do, and the exit code the command line ends with.

Every error that a user can cause or mend is an `EdgepackError`; anything else that escapes is a bug (exit code 1).
Each direct child of `EdgepackError` owns one exit code; a test keeps the codes unique and equal to the documented ones.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class EdgepackError(Exception):
    """Base of every error edgepack raises on purpose.

    Attributes:
        exit_code: Process exit code of the command line.
        kind: Stable identifier, used as `error.kind` in JSON.
        message: What was wrong and where, one or two sentences.
        hint: What to do about it; empty when the message says it all.
        details: Extra JSON-serializable facts (figures, the tail of a log, paths the user gave).
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross from child processes; Exception's own pickling would drop the keyword arguments.
        return (_rebuild, (type(self), self.message, self.hint, self.details))

    def to_json(self) -> dict[str, Any]:
        """Return the `error` object of the JSON contract."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
        }
        if self.details:
            document["details"] = self.details
        return document


def _rebuild(kind: type[EdgepackError], message: str, hint: str, details: dict[str, Any]) -> EdgepackError:
    return kind(message, hint=hint, details=details)


class UsageError(EdgepackError):
    """An argument, flag, target, scheme or sample source that does not exist or does not make sense."""

    exit_code = 2
    kind = "usage"


class ProfileError(UsageError):
    """A target profile that breaks its schema; the message lists every fault found."""

    kind = "profile"


class SamplesError(UsageError):
    """Samples that are missing, unreadable or do not match the model's inputs."""

    kind = "samples"


class UnfitModelError(EdgepackError):
    """The model does not fit the target, or is not a model edgepack can read."""

    exit_code = 3
    kind = "unfit-model"


class ModelFileError(UnfitModelError):
    """A model file that cannot be read: truncated, corrupt or of another format."""

    kind = "model-file"


class TransformError(EdgepackError):
    """Conversion, training or quantization failed."""

    exit_code = 4
    kind = "transform"


class ConversionError(TransformError):
    """The model could not be converted to a float .tflite."""

    kind = "conversion"


class QuantizationError(TransformError):
    """A scheme could not be applied to the float .tflite."""

    kind = "quantization"


class ToolMissingError(EdgepackError):
    """A vendor tool that was required is not installed."""

    exit_code = 5
    kind = "tool-missing"


class DeviceError(ToolMissingError):
    """A device to verify on that is not there, does not let us in, does not answer, or lacks the bundle's test."""

    kind = "device"


class CompilerError(EdgepackError):
    """A vendor's compiler ran and failed."""

    exit_code = 6
    kind = "compiler"


class BundleError(EdgepackError):
    """A bundle could not be written or did not pass verification."""

    exit_code = 7
    kind = "bundle"


class AccuracyError(EdgepackError):
    """No file holds what was asked for: --max-drop, --max-size, --max-download."""

    exit_code = 8
    kind = "accuracy"
