"""The quantization schemes of TensorFlow's post-training and training guides, and the data each one needs."""

from dataclasses import dataclass
from enum import StrEnum

from edgepack.choices import SchemeChoice
from edgepack.errors import UsageError


class Needs(StrEnum):
    """Data that a scheme needs from the user."""

    NOTHING = "nothing"
    SAMPLES = "samples"
    LABELS = "labels"


@dataclass(frozen=True)
class Scheme:
    """A quantization scheme: the data types of weights and activations.

    Attributes:
        id: Stable identifier, used on the command line, in profiles and in manifests.
        title: Name for people.
        needs: Data that the user has to provide.
        weights: TFLite tensor type of the weights.
        activations: TFLite tensor type of the activations.
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
        """True when activations are integers, whose ranges come from calibration or training."""
        return self.activations != "FLOAT32"

    @property
    def need_text(self) -> str:
        """Data that the user has to provide, for messages."""
        return {
            Needs.NOTHING: "no data",
            Needs.SAMPLES: "unlabelled samples (--samples)",
            Needs.LABELS: "labelled training data (--train)",
        }[self.needs]


_ALL = (
    Scheme(
        SchemeChoice.FLOAT32.value, "float32", Needs.NOTHING, "FLOAT32", "FLOAT32", 1.0, "The trained model, unchanged."
    ),
    Scheme(
        SchemeChoice.FLOAT16.value,
        "float16 weights",
        Needs.NOTHING,
        "FLOAT16",
        "FLOAT32",
        0.5,
        "Weights in half precision; a CPU converts them to float32 at load time, a GPU computes in half precision.",
    ),
    Scheme(
        SchemeChoice.DYNAMIC_RANGE.value,
        "dynamic range int8",
        Needs.NOTHING,
        "INT8",
        "FLOAT32",
        0.25,
        "Weights in int8; activations are quantized at run time.",
    ),
    Scheme(
        SchemeChoice.INT8.value,
        "full integer int8",
        Needs.SAMPLES,
        "INT8",
        "INT8",
        0.25,
        "Weights and activations in int8; activation ranges are calibrated on representative samples.",
    ),
    Scheme(
        SchemeChoice.INT16X8.value,
        "int16 activations, int8 weights",
        Needs.SAMPLES,
        "INT8",
        "INT16",
        0.25,
        "Weights in int8, activations in int16: close to float accuracy, with slow kernels on a CPU.",
    ),
    Scheme(
        SchemeChoice.INT8_QAT.value,
        "quantization-aware training, int8",
        Needs.LABELS,
        "INT8",
        "INT8",
        0.25,
        "Weights and activations in int8; weights and ranges are trained for it.",
    ),
)

SCHEMES: dict[str, Scheme] = {scheme.id: scheme for scheme in _ALL}


def plain_type(dtype: str) -> str:
    """Return the name for messages of a wider type of single ops in an int8 file: `float`, `int16`."""
    return "float" if dtype == "float32" else dtype


def get_scheme(scheme_id: str) -> Scheme:
    """Return the scheme with this id.

    Raises:
        UsageError: No scheme has that id.
    """
    try:
        return SCHEMES[scheme_id]
    except KeyError:
        raise UsageError(f"unknown scheme '{scheme_id}'", hint=f"schemes are: {', '.join(SchemeChoice)}") from None
