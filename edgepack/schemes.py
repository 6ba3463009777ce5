"""The quantization schemes, as TensorFlow's post-training and training guides define them, and what each needs."""

from dataclasses import dataclass
from enum import StrEnum

from edgepack.errors import UsageError


class Needs(StrEnum):
    """What data a scheme needs from the user."""

    NOTHING = "nothing"
    SAMPLES = "samples"
    LABELS = "labels"


@dataclass(frozen=True)
class Scheme:
    """One way to represent a model's numbers.

    Attributes:
        id: Stable identifier, used on the command line, in profiles and in manifests.
        title: Name for people.
        needs: Data the user has to give.
        weights: TFLite tensor type of weights.
        activations: TFLite tensor type of activations.
        size_ratio: Expected file size divided by the float32 file's (TensorFlow's post-training guide).
        summary: One sentence for people.
    """

    id: str
    title: str
    needs: Needs
    weights: str
    activations: str
    size_ratio: float
    summary: str

    @property
    def is_integer(self) -> bool:
        """True when activations are integers, so calibration or training has to find their ranges."""
        return self.activations != "FLOAT32"

    @property
    def need_text(self) -> str:
        """What the user has to give, for messages."""
        return {
            Needs.NOTHING: "no data",
            Needs.SAMPLES: "unlabelled samples (--samples)",
            Needs.LABELS: "labelled training data (--train)",
        }[self.needs]


_ALL = (
    Scheme("float32", "float32", Needs.NOTHING, "FLOAT32", "FLOAT32", 1.0, "The model as it was trained."),
    Scheme(
        "float16",
        "float16 weights",
        Needs.NOTHING,
        "FLOAT16",
        "FLOAT32",
        0.5,
        "Weights in half precision; a CPU widens them at load time, a GPU computes in half precision.",
    ),
    Scheme(
        "dynamic-range",
        "dynamic range int8",
        Needs.NOTHING,
        "INT8",
        "FLOAT32",
        0.25,
        "Weights in int8; activations are quantized while the model runs.",
    ),
    Scheme(
        "int8",
        "full integer int8",
        Needs.SAMPLES,
        "INT8",
        "INT8",
        0.25,
        "Weights and activations in int8, ranges measured on representative samples.",
    ),
    Scheme(
        "int16x8",
        "int16 activations, int8 weights",
        Needs.SAMPLES,
        "INT8",
        "INT16",
        0.25,
        "Weights in int8, activations in int16: close to float accuracy, slow kernels on a CPU.",
    ),
    Scheme(
        "int8-qat",
        "quantization-aware training, int8",
        Needs.LABELS,
        "INT8",
        "INT8",
        0.25,
        "int8 with ranges and weights learned in training.",
    ),
)

SCHEMES: dict[str, Scheme] = {scheme.id: scheme for scheme in _ALL}


def plain_type(dtype: str) -> str:
    """Return what people call the type that single ops of an int8 file are kept in: `float`, `int16`."""
    return "float" if dtype == "float32" else dtype


def get_scheme(scheme_id: str) -> Scheme:
    """Return the scheme called `scheme_id`.

    Raises:
        UsageError: No scheme has that id.
    """
    try:
        return SCHEMES[scheme_id]
    except KeyError:
        raise UsageError(f"unknown scheme '{scheme_id}'", hint=f"schemes are: auto, {', '.join(SCHEMES)}") from None
