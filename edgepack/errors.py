"""The errors: what happened, what to do about it, and the exit code of the command line.

Every error that a user can cause or fix is an `EdgepackError`; any other exception that escapes is a bug (exit code 1).
Each direct subclass of `EdgepackError` has its own exit code; tests keep the codes unique and equal to the documented
ones.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class EdgepackError(Exception):
    """Base class of the errors that edgepack raises deliberately.

    Attributes:
        exit_code: Process exit code of the command line.
        kind: Stable identifier, used as `error.kind` in JSON.
        message: What was wrong and where, one or two sentences.
        hint: What to do about it; empty when the message is enough.
        details: Further JSON-serializable facts (figures, the end of a log, the user's paths).
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        # Child processes send errors as pickles; the default pickling of Exception drops the keyword arguments.
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
    """An argument, option, target, scheme or sample source does not exist or is invalid."""

    exit_code = 2
    kind = "usage"


class ProfileError(UsageError):
    """A target profile violates its schema; the message lists every fault."""

    kind = "profile"


class ProjectError(UsageError):
    """There is no project file, or it has faults; the message lists them with their lines."""

    kind = "project"


class SamplesError(UsageError):
    """Samples are missing, unreadable or do not match the model's inputs."""

    kind = "samples"


class UnfitModelError(EdgepackError):
    """The model does not fit the target, or is not a model that edgepack can read."""

    exit_code = 3
    kind = "unfit-model"


class ModelFileError(UnfitModelError):
    """A model file cannot be read: truncated, corrupt or of another format."""

    kind = "model-file"


class TransformError(EdgepackError):
    """Conversion, training or quantization failed."""

    exit_code = 4
    kind = "transform"


class ConversionError(TransformError):
    """The model could not be converted to a float .tflite."""

    kind = "conversion"


class QuantizationError(TransformError):
    """The float .tflite could not be quantized."""

    kind = "quantization"


class ToolMissingError(EdgepackError):
    """A required vendor tool is not installed."""

    exit_code = 5
    kind = "tool-missing"


class DeviceError(ToolMissingError):
    """The device to verify on is missing, refuses access, does not respond, or lacks the bundle's test."""

    kind = "device"


class CompilerError(EdgepackError):
    """A vendor's compiler failed."""

    exit_code = 6
    kind = "compiler"


class BundleError(EdgepackError):
    """A bundle could not be written or failed verification."""

    exit_code = 7
    kind = "bundle"


class DeliveryError(BundleError):
    """A registry cannot be reached, refuses a request, or serves something else than a bundle."""

    kind = "delivery"


class AccuracyError(EdgepackError):
    """No candidate meets the requested limits: --max-drop, --max-size, --max-download, --strict."""

    exit_code = 8
    kind = "accuracy"
