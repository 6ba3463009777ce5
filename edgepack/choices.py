"""Values that an option accepts: one definition, read by the library and by the command line.

Every enum is a `StrEnum`, so a value compares, formats and serializes to JSON exactly like its text.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from edgepack.errors import UsageError

Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(option: str, choices: type[Choice], value: str) -> Choice:
    """Return the member of an enum that a text names.

    Args:
        option: Option that the text was given for, `--effort`; the error message names it.
        choices: The enum.
        value: A member, or its text.

    Raises:
        UsageError: No member has that text.
    """
    try:
        return choices(value)
    except ValueError:
        # Imported here: only an error needs it.
        from difflib import get_close_matches

        closest = get_close_matches(str(value).lower(), list(choices), 1)
        raise UsageError(
            f"{option}: expected {alternatives(list(choices))}, got '{value}'",
            hint=f"did you mean '{closest[0]}'?" if closest else f"give one of: {', '.join(choices)}",
        ) from None


def parse_optional(option: str, choices: type[Choice], value: str | None) -> Choice | None:
    """Return the member of an enum that a text names, None for None or an empty text.

    Raises:
        UsageError: No member has that text.
    """
    return parse_choice(option, choices, value) if value else None


def alternatives(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: `low, medium or high`."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


class SchemeChoice(StrEnum):
    """Quantization scheme of a build: an id of `edgepack.schemes.SCHEMES`, or the target's preference."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC_RANGE = "dynamic-range"
    INT8 = "int8"
    INT16X8 = "int16x8"
    INT8_QAT = "int8-qat"


class Effort(StrEnum):
    """How much time a build spends on int8 accuracy."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Repair(StrEnum):
    """Which rewrites replace ops that a target does not support."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    NONE = "none"


class CompilePolicy(StrEnum):
    """Whether the vendor's compiler runs: if it is installed, always, or never."""

    AUTO = "auto"
    REQUIRE = "require"
    NEVER = "never"


class RangeMethod(StrEnum):
    """How the range of an activation is computed from its calibration statistics."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class Platform(StrEnum):
    """Operating system of a bundle."""

    ANDROID = "android"
    LINUX = "linux"


class Language(StrEnum):
    """Language of the Android loader."""

    KOTLIN = "kotlin"
    JAVA = "java"


class Delivery(StrEnum):
    """How an Android bundle reaches the app: a library module, a Play AI pack, or an .aar archive."""

    MODULE = "module"
    AI_PACK = "ai-pack"
    AAR = "aar"


class Resize(StrEnum):
    """How an image gets the size of an input: stretched, inside black borders, or cut to the input's aspect ratio."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"
    CENTER_CROP = "center-crop"


class Task(StrEnum):
    """What the outputs of a model mean."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    KEYPOINTS = "keypoints"
    EMBEDDING = "embedding"
    AUDIO = "audio"


class AndroidRuntime(StrEnum):
    """LiteRT that an Android loader is written for: the Interpreter of 1.x, or CompiledModel of 2.x."""

    LITERT1 = "litert1"
    LITERT2 = "litert2"


class Delegate(StrEnum):
    """TFLite delegate that the loader uses."""

    NONE = "none"
    GPU = "gpu"
    EDGETPU = "edgetpu"
    QNN = "qnn"


class IoType(StrEnum):
    """Data type of a quantized file's inputs and outputs, as the command line spells it."""

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"


class Verdict(StrEnum):
    """Judgement of a file's loss: none beyond the thresholds, accuracy is lost, or it is likely unusable."""

    SOUND = "sound"
    LOSSY = "lossy"
    UNUSABLE = "unusable"


class Recipe(StrEnum):
    """Training recipe: quantization-aware training, pruning, clustering, and combinations of them."""

    QAT = "qat"
    PRUNE = "prune"
    CLUSTER = "cluster"
    PRUNE_QAT = "prune+qat"
    CLUSTER_QAT = "cluster+qat"
    PRUNE_CLUSTER = "prune+cluster"
    PRUNE_CLUSTER_QAT = "prune+cluster+qat"


class SparsityPattern(StrEnum):
    """Where pruning may place zeros: two of every four values, or 1 by 4 blocks. Without a pattern, anywhere."""

    TWO_IN_FOUR = "2:4"
    BLOCK = "block"


class SparsitySchedule(StrEnum):
    """How sparsity grows during pruning: all at once, or along a polynomial."""

    CONSTANT = "constant"
    POLYNOMIAL = "polynomial"


class LossName(StrEnum):
    """Loss on class labels that training minimizes."""

    SPARSE_CATEGORICAL_CROSSENTROPY = "sparse_categorical_crossentropy"
    CATEGORICAL_CROSSENTROPY = "categorical_crossentropy"
    BINARY_CROSSENTROPY = "binary_crossentropy"
    MEAN_SQUARED_ERROR = "mean_squared_error"
    MEAN_ABSOLUTE_ERROR = "mean_absolute_error"
