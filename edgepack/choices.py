"""Values that an option can take: one definition, read by the library and by the command line."""

from enum import StrEnum


class Effort(StrEnum):
    """How much time is spent on the accuracy of int8."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Repair(StrEnum):
    """Which rewrites of ops that a target refuses are applied."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    NONE = "none"


class CompilePolicy(StrEnum):
    """Whether the vendor's compiler runs: when it is installed, always, or not at all."""

    AUTO = "auto"
    REQUIRE = "require"
    NEVER = "never"


class RangeMethod(StrEnum):
    """How the range of an activation is chosen from its calibration statistics."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class Platform(StrEnum):
    """Operating system that a bundle is made for."""

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


class Delegate(StrEnum):
    """TFLite delegate that a loader uses."""

    NONE = "none"
    GPU = "gpu"
    EDGETPU = "edgetpu"
    QNN = "qnn"


class IoType(StrEnum):
    """Data type of a quantized file's inputs and outputs, as the command line spells it."""

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"


class Recipe(StrEnum):
    """Training recipe: quantization-aware training, pruning, clustering, and what combines them."""

    QAT = "qat"
    PRUNE = "prune"
    CLUSTER = "cluster"
    PRUNE_QAT = "prune+qat"
    CLUSTER_QAT = "cluster+qat"
    PRUNE_CLUSTER = "prune+cluster"
    PRUNE_CLUSTER_QAT = "prune+cluster+qat"


class SparsityPattern(StrEnum):
    """Where pruning may put zeros, when not anywhere."""

    TWO_IN_FOUR = "2:4"
    BLOCK = "block"
