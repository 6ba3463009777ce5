"""What the functions of the library accept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Protocol


class LiveModel(Protocol):
    """A model in memory: of Keras 3 or tf-keras, a tf.Module, or what `tf.saved_model.load` returned."""

    def __getattribute__(self, name: str, /) -> Any:
        """Return an attribute."""


class ArrayLike(Protocol):
    """An array of NumPy, TensorFlow, PyTorch or JAX, or a table of pandas: the first dimension are the samples."""

    @property
    def shape(self) -> Any:
        """Sizes of the dimensions."""

    def __array__(self) -> Any:
        """Return the values as a NumPy array."""


#: A model file or folder, the content of a .tflite, or a model in memory.
ModelLike = str | PathLike[str] | bytes | LiveModel

#: Samples: the text of the command line's option, a path, or an object in memory.
SamplesLike = (
    str
    | PathLike[str]
    | ArrayLike
    | Mapping[str, Any]
    | tuple[Any, ...]
    | Iterable[Any]
    | Callable[[], Iterable[Any] | Mapping[str, Any] | ArrayLike]
)

#: One target or several: `"edgetpu"`, `"hexagon@SM8550"` (with a chip), `"all"`.
Targets = str | Sequence[str]

#: Shapes by input name, or the texts of `--input-shape`.
InputShapes = Mapping[str, Sequence[int]] | Sequence[str] | str

#: Class names, or a text file with one per line.
Labels = str | PathLike[str] | Sequence[str]

#: Size in bytes, or a text such as `500KB`.
Size = int | str

#: Receives a sentence about each step; False shows nothing, None shows it where somebody watches.
ProgressLike = Callable[[str], None] | bool | None
