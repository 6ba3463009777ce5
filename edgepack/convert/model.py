"""Options and result of a conversion."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvertOptions:
    """How to read a model.

    Attributes:
        input_shapes: Full shape by input name, batch dimension first; required for inputs with dynamic dimensions.
        allow_code: True to run Lambda layers, custom classes and file operations in the model.
        batch: Size that replaces a dynamic batch dimension.
        signature: Signature of a SavedModel; empty for `serving_default` or the only one.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    allow_code: bool = False
    batch: int = 1
    signature: str = ""


@dataclass(frozen=True)
class FloatModel:
    """A model as a .tflite, before edgepack quantizes it.

    Attributes:
        tflite: The file's content.
        source_format: Id of the importer that read the user's file: `keras`, `h5`, `saved_model`, `tflite`.
        quantized: True when the user's .tflite was already quantized (integer or half-precision tensors).
        checked: Largest difference between the .tflite's outputs and the original's, divided by the largest absolute
            value of that output; None for a .tflite, which has no other original.
        notes: Sentences for the user.
        arithmetic: What the original does to each value of an input first, by input name: factors and summands, one of
            each or one per channel; without inputs whose values it takes as they are. Empty for a .tflite.
    """

    tflite: bytes
    source_format: str
    quantized: bool
    checked: float | None
    notes: tuple[str, ...] = ()
    arithmetic: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
