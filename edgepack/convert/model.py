"""What conversion takes and gives, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What a model file can be.
SourceFormat = Literal["keras", "h5", "saved_model", "tflite"]


@dataclass(frozen=True)
class ConvertOptions:
    """How to read a model.

    Attributes:
        input_shapes: Whole shapes by input name, batch first; for inputs with dynamic dimensions.
        allow_code: True to run Lambda layers, custom classes and file operations that the model carries.
        batch: What a dynamic batch dimension becomes.
        signature: Signature of a SavedModel; empty for `serving_default` or the only one.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    allow_code: bool = False
    batch: int = 1
    signature: str = ""


@dataclass(frozen=True)
class FloatModel:
    """A model as a .tflite, before any scheme of edgepack touched it.

    Attributes:
        tflite: The file.
        source_format: What the user gave.
        quantized: True when the user's .tflite was quantized already (integers or half precision inside).
        checked: Largest difference between the .tflite's outputs and the original's, divided by the largest absolute
            value of that output; None for a .tflite, which is its own original.
        notes: Sentences for the user.
    """

    tflite: bytes
    source_format: SourceFormat
    quantized: bool
    checked: float | None
    notes: tuple[str, ...] = ()
