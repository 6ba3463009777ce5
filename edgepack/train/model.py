"""What training takes and gives, as values."""

from dataclasses import dataclass, field
from typing import Any

from edgepack.choices import LossName, Recipe, SparsityPattern, SparsitySchedule, parse_choice, parse_optional
from edgepack.errors import UsageError
from edgepack.train.report import FileReport

#: Recipe -> its stages in order. A later stage keeps what the earlier ones made: zeros stay zeros, clusters clusters.
RECIPES: dict[str, tuple[str, ...]] = {
    "qat": ("qat",),
    "prune": ("prune",),
    "cluster": ("cluster",),
    "prune+qat": ("prune", "qat"),
    "cluster+qat": ("cluster", "qat"),
    "prune+cluster": ("prune", "cluster"),
    "prune+cluster+qat": ("prune", "cluster", "qat"),
}

#: Losses that fit class labels.
LOSSES = tuple(LossName)

#: Learning rate of each stage without `--learning-rate`: all of them start from a trained model.
LEARNING_RATES = {"prune": 1e-3, "cluster": 2e-4, "qat": 2e-4}

#: Epochs of each stage without `--epochs`.
EPOCHS = {"prune": 6, "cluster": 4, "qat": 4}


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: Epochs of each stage; 0 for the stage's own default.
        batch: Samples per step.
        learning_rate: Of each stage; 0.0 for the stage's own default.
        loss: Loss; None for the compiled model's, else the one that fits the output.
        sparsity: Share of zeros that pruning aims at, in (0, 1).
        pattern: Where zeros are: `2:4` (two of every four values), `block` (1 by 4 blocks, Dense layers only), None for
            anywhere.
        schedule: `constant` (all zeros at once) or `polynomial` (growing over the first two thirds of the stage).
        clusters: Different weights per layer.
        seed: Of every random choice.
        allow_code: Let Lambda layers of the model run.
    """

    epochs: int = 0
    batch: int = 32
    learning_rate: float = 0.0
    loss: LossName | None = None
    sparsity: float = 0.5
    pattern: SparsityPattern | None = None
    schedule: SparsitySchedule = SparsitySchedule.POLYNOMIAL
    clusters: int = 16
    seed: int = 7
    allow_code: bool = False

    def __post_init__(self) -> None:
        """Convert texts to enums; `object.__setattr__` because the class is frozen."""
        for name, value in {
            "loss": parse_optional("--loss", LossName, self.loss),
            "pattern": parse_optional("--pattern", SparsityPattern, self.pattern),
            "schedule": parse_choice("--schedule", SparsitySchedule, self.schedule),
        }.items():
            object.__setattr__(self, name, value)

    def require_valid(self, recipe: str) -> None:
        """Check recipe and options.

        Raises:
            UsageError: Names the option and what it takes.
        """
        parse_choice("--recipe", Recipe, recipe)
        if not 0.0 < self.sparsity < 1.0:
            raise UsageError(f"--sparsity: expected a share between 0 and 1, got {self.sparsity:g}")
        if self.pattern == SparsityPattern.TWO_IN_FOUR and self.sparsity != 0.5:
            raise UsageError(
                f"--pattern 2:4 makes half of the weights zero, --sparsity asks for {self.sparsity:g}",
                hint="leave --sparsity out, or leave --pattern out",
            )
        if not 3 <= self.clusters <= 256:
            raise UsageError(f"--clusters: expected 3 to 256, got {self.clusters}")
        if self.epochs < 0 or self.batch < 1 or self.learning_rate < 0:
            raise UsageError("--epochs, --batch and --learning-rate have to be positive")


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        tflite: int8 for recipes that end in `qat`, else float.
        float_tflite: The float model that quantization-aware training started from; for the other recipes `tflite`.
        quantized: True when `tflite` is int8.
        history: One entry per epoch: stage, epoch, loss, accuracy, and val_accuracy with validation data.
        left_float: Layers that TFMOT cannot annotate, which stay float in an int8 file: `name (Class)`.
        report: What is in `tflite`: sizes, and zeros and unique weights per layer.
        notes: Sentences for the user.
    """

    tflite: bytes
    float_tflite: bytes
    quantized: bool
    history: tuple[dict[str, Any], ...]
    left_float: tuple[str, ...]
    report: FileReport
    notes: tuple[str, ...] = field(default=())
