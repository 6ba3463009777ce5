"""Recipes, options and the result of training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.choices import LossName, Recipe, SparsityPattern, SparsitySchedule, parse_choice, parse_optional
from edgepack.errors import UsageError
from edgepack.profiles.model import SchemeRule
from edgepack.samples import SampleSet
from edgepack.training.report import FileReport

#: Recipe -> its stages in order. A later stage preserves the zeros and clusters of the earlier ones.
RECIPES: dict[str, tuple[str, ...]] = {recipe.value: tuple(recipe.split("+")) for recipe in Recipe}

#: Losses that fit class labels.
LOSSES = tuple(LossName)

#: Default learning rate of each stage, which starts from a trained model.
LEARNING_RATES = {"prune": 1e-3, "cluster": 2e-4, "qat": 2e-4}

#: Default number of epochs of each stage.
EPOCHS = {"prune": 6, "cluster": 4, "qat": 4}


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: Epochs of each stage; 0 for the stage's own default.
        batch: Samples per step.
        learning_rate: Initial learning rate of each stage; 0.0 for the stage's own default.
        loss: Loss, None for that of the compiled model, else one that fits the output.
        sparsity: Target share of zeros of pruning, in (0, 1).
        pattern: Where zeros are placed: `2:4` (two in every four values), `block` (1 by 4 blocks, Dense layers only),
            None for anywhere.
        schedule: Sparsity schedule: `constant` (all zeros at once) or `polynomial` (growing over the first two thirds
            of the stage).
        clusters: Number of distinct weights per layer.
        seed: Random seed.
        allow_code: Allow Lambda layers of the model to run.
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
            UsageError: The recipe or an option is not valid.
        """
        parse_choice("--recipe", Recipe, recipe)
        if not 0.0 < self.sparsity < 1.0:
            raise UsageError(f"--sparsity: expected a share between 0 and 1, got {self.sparsity:g}")
        if self.pattern == SparsityPattern.TWO_IN_FOUR and self.sparsity != 0.5:
            raise UsageError(
                f"--pattern 2:4 makes half of the weights zero, but --sparsity is {self.sparsity:g}",
                hint="remove --sparsity, or remove --pattern",
            )
        if not 3 <= self.clusters <= 256:
            raise UsageError(f"--clusters: expected 3 to 256, got {self.clusters}")
        if self.epochs < 0 or self.batch < 1 or self.learning_rate < 0:
            raise UsageError("--epochs, --batch and --learning-rate must be positive")


@dataclass(frozen=True)
class TrainingRequest:
    """Everything that a training depends on.

    Attributes:
        path: .keras or .h5.
        reference: Float .tflite of the same model, for names, shapes and order of inputs and outputs.
        data: Labelled training samples, matched to the reference's inputs.
        validation: Labelled samples to measure on after each epoch, None for none.
        recipe: One of `RECIPES`.
        options: Epochs, sparsity, clusters and the like.
        rule: Constraints on an int8 file; None for float inputs and outputs.
        checkpoint_dir: Folder in which the state is saved, and from which it is resumed.
    """

    path: Path
    reference: bytes
    data: SampleSet
    validation: SampleSet | None
    recipe: str
    options: TrainOptions
    rule: SchemeRule | None
    checkpoint_dir: Path


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        tflite: int8 for recipes that end in `qat`, else float.
        float_tflite: The float model before quantization-aware training; equal to `tflite` for other recipes.
        quantized: True when `tflite` is int8.
        history: One entry per epoch: stage, epoch, loss, accuracy, and val_accuracy with validation data.
        left_float: Layers that TFMOT cannot annotate, which stay float in an int8 file: `name (Class)`.
        report: Sizes of `tflite`, and zeros and unique weights per layer.
        notes: Notes for the user.
    """

    tflite: bytes
    float_tflite: bytes
    quantized: bool
    history: tuple[dict[str, Any], ...]
    left_float: tuple[str, ...]
    report: FileReport
    notes: tuple[str, ...] = field(default=())
