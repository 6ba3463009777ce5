"""Samples that a Python program has in memory: arrays, dicts, tuples with labels, tf.data.Dataset, iterables.

An object is read once and written to .npy files in a temporary folder, as far as it is needed: from there on it is what
samples in files are, with the same checks and messages. A child process reads samples one by one from these files, so
that no process holds them all.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError
from edgepack.samples.load import LABEL_NAMES, MOST_FUNCTION_BYTES, from_arrays
from edgepack.samples.source import InputSpec, SampleSet
from edgepack.samples.storage import StoredArray, read_stored
from edgepack.text import first_line

Array = npt.NDArray[Any]

#: Most samples that are taken from an iterable, which may never end: a million class indices take a second to read.
MOST_ITEMS = 1_000_000

_KINDS = "an array, a dict of arrays by input name, a tuple (inputs, labels), a tf.data.Dataset, an iterable of samples"
_HINT = f"give {_KINDS}, a function that returns one of these, or the path of a file or folder"

#: `tf.data.INFINITE_CARDINALITY`.
_INFINITE = -1


class InMemorySamples:
    """Samples of a Python program; see `SampleObject`.

    Args:
        value: The object.
        name: Argument that it was passed as, for messages: `eval`.
        folder: An existing folder for the files; whoever created it removes it after the last use of the samples.
        limit: Most samples that are used, None for all. Of arrays they are taken evenly, as from a file; an iterable
            is read up to there.
    """

    def __init__(self, value: Any, name: str, folder: Path, limit: int | None = None) -> None:
        self._value = value
        self.name = f"{name} ({_kind(value)})"
        self._folder = folder / name
        self._limit = limit
        self._sets: dict[tuple[tuple[InputSpec, ...], tuple[str, ...]], SampleSet] = {}

    def load(self, inputs: Sequence[InputSpec], classes: Sequence[str]) -> SampleSet:
        """Return the samples, matched to a model's inputs.

        Raises:
            SamplesError: They do not match, have no known form, or reading them failed.
        """
        key = tuple(inputs), tuple(classes)
        if key not in self._sets:
            self._sets[key] = self._load(inputs, classes)
        return self._sets[key]

    def _load(self, inputs: Sequence[InputSpec], classes: Sequence[str]) -> SampleSet:
        try:
            columns, labels = self._columns(self._value, inputs)
        except SamplesError:
            raise
        except Exception as error:  # whatever the caller's own objects raise
            reason = f"{type(error).__name__}: {first_line(error, default='')}"
            raise SamplesError(f"samples '{self.name}' cannot be read: {reason}", hint=_HINT) from error
        if labels is None:
            named = next((name for name in LABEL_NAMES if name in columns and name not in _names(inputs)), None)
            labels = None if named is None else columns.pop(named)
        folder = self._folder / str(len(self._sets))
        digest = hashlib.sha256()
        try:
            folder.mkdir(parents=True)
            stored: dict[str, Array | StoredArray] = {
                name: _store(folder / f"{number}.npy", array, name, digest)
                for number, (name, array) in enumerate(columns.items())
            }
        except OSError as error:
            raise SamplesError(
                f"samples '{self.name}' cannot be written to a temporary file: {error.strerror or error}",
                hint="free space in the temporary folder (TMPDIR), or pass fewer samples",
            ) from error
        if labels is not None:
            digest.update(b"\0" + f"{labels.dtype} {labels.shape}".encode() + labels.tobytes())
        return from_arrays(self.name, digest.hexdigest(), stored, labels, inputs, classes)

    def _columns(self, value: Any, inputs: Sequence[InputSpec]) -> tuple[dict[str, Array], Array | None]:
        """Return arrays by input name, and the labels."""
        if callable(value) and not _is_array(value) and not hasattr(value, "__iter__"):
            value = value()
        if isinstance(value, Mapping):
            return self._evenly({str(name): _array(array) for name, array in value.items()}, None)
        if isinstance(value, tuple):
            data, labels = _split(value, inputs)
            return self._evenly(_by_input(data, inputs), None if labels is None else _array(labels))
        if _is_array(value):
            array = _array(value)
            return self._evenly({"x": array}, None)
        if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
            raise SamplesError(f"samples '{self.name}': expected samples, got {type(value).__name__}", hint=_HINT)
        return self._stacked(self._items(value, inputs), inputs)

    def _evenly(self, columns: dict[str, Array], labels: Array | None) -> tuple[dict[str, Array], Array | None]:
        """Return at most `limit` samples, those that `SampleSet.limited` takes."""
        counts = {len(array) for array in (*columns.values(), *([] if labels is None else [labels])) if array.ndim}
        if self._limit is None or len(counts) != 1 or (count := counts.pop()) <= self._limit:
            return columns, labels
        chosen = np.linspace(0, count - 1, self._limit).astype(np.int64)
        return {name: array[chosen] for name, array in columns.items()}, None if labels is None else labels[chosen]

    def _items(self, value: Iterable[Any], inputs: Sequence[InputSpec]) -> Iterator[tuple[dict[str, Array], Any]]:
        """Yield samples one by one from an iterable of samples or of batches, up to the limits."""
        if self._limit is None and hasattr(value, "cardinality") and int(value.cardinality()) == _INFINITE:
            raise SamplesError(f"samples '{self.name}' never end", hint="limit them: dataset.take(number of batches)")
        total = count = 0
        for element in value:
            for arrays, label in _rows(element, inputs):
                total += sum(array.nbytes for array in arrays.values())
                count += 1
                if total > MOST_FUNCTION_BYTES or count > MOST_ITEMS:
                    raise SamplesError(
                        f"samples '{self.name}' are more than {MOST_FUNCTION_BYTES:,} bytes or {MOST_ITEMS:,} samples",
                        hint="limit them (dataset.take, itertools.islice), or give an array or an .npy of them",
                    )
                yield arrays, label
                if count == self._limit:
                    return

    def _stacked(
        self, items: Iterable[tuple[dict[str, Array], Any]], inputs: Sequence[InputSpec]
    ) -> tuple[dict[str, Array], Array | None]:
        rows = list(items)
        if not rows:
            raise SamplesError(
                f"samples '{self.name}' are empty",
                hint="a generator can be read once only: pass a list, or the function that makes the generator",
            )
        names = list(rows[0][0])
        for position, (arrays, _) in enumerate(rows):
            for name in names:
                if name not in arrays or arrays[name].shape != rows[0][0][name].shape:
                    got = f"shape {list(arrays[name].shape)}" if name in arrays else "nothing"
                    raise SamplesError(
                        f"samples '{self.name}' differ in shape: sample 0 has {list(rows[0][0][name].shape)} for "
                        f"'{name}', sample {position} has {got}",
                        hint="all samples of an input have one shape, which the model declares",
                    )
        labels = [label for _, label in rows]
        unlabelled = sum(label is None for label in labels)
        if 0 < unlabelled < len(labels):
            raise SamplesError(f"samples '{self.name}': {unlabelled} of {len(labels)} samples have no label")
        columns = {name: np.stack([arrays[name] for arrays, _ in rows]) for name in names}
        return columns, None if unlabelled else np.asarray(labels)


def _kind(value: Any) -> str:
    if _is_array(value):
        return "array"
    name = type(value).__name__
    return "Dataset" if name.endswith("Dataset") else name.lstrip("_")


def _names(inputs: Sequence[InputSpec]) -> list[str]:
    return [spec.name for spec in inputs]


def _is_array(value: Any) -> bool:
    """Return whether a value is an array with at least one dimension: NumPy's, a tensor, a table of pandas."""
    shape = getattr(value, "shape", None)
    return hasattr(value, "__array__") and shape is not None and len(shape) > 0


def _array(value: Any) -> Array:
    return np.asarray(value)


def _split(value: Sequence[Any], inputs: Sequence[InputSpec]) -> tuple[Any, Any]:
    """Return inputs and labels of a tuple, by Keras's convention: (inputs, labels) or (inputs, labels, weights).

    A tuple of as many arrays as the model has inputs, two or more, holds inputs.
    """
    if len(inputs) > 1 and len(value) == len(inputs) and not isinstance(value[0], Mapping | tuple | list):
        return value, None
    if len(value) in {2, 3}:
        return value[0], value[1]
    if len(value) == 1:
        return value[0], None
    raise SamplesError(f"expected a tuple of inputs and labels, got one of {len(value)} entries", hint=_HINT)


def _by_input(data: Any, inputs: Sequence[InputSpec]) -> dict[str, Array]:
    """Return arrays by name: those of a dict, of a sequence with one entry per input, or the only one."""
    if isinstance(data, Mapping):
        return {str(name): _array(array) for name, array in data.items()}
    if isinstance(data, list | tuple) and len(data) == len(inputs) and (len(inputs) > 1 or _is_array(data[0])):
        return {spec.name: _array(array) for spec, array in zip(inputs, data, strict=True)}
    return {inputs[0].name if len(inputs) == 1 else "x": _array(data)}


def _rows(element: Any, inputs: Sequence[InputSpec]) -> Iterator[tuple[dict[str, Array], Any]]:
    """Yield the samples of one element of an iterable: a sample, or a batch of them, with labels or without."""
    label: Any = None
    if isinstance(element, tuple) or _is_pair(element, inputs):
        element, label = _split(element, inputs)
    arrays = _by_input(element, inputs)
    if label is None:
        named = next((name for name in LABEL_NAMES if name in arrays and name not in _names(inputs)), None)
        label = None if named is None else arrays.pop(named)
    spec = next((spec for spec in inputs if spec.name in arrays), inputs[0])
    first = arrays[spec.name] if spec.name in arrays else next(iter(arrays.values()), np.zeros(()))
    if first.ndim <= len(spec.sample_shape):
        yield arrays, None if label is None else _plain_label(_array(label))
        return
    labels = None if label is None else _array(label)
    counts = {len(array) if array.ndim else 0 for array in (*arrays.values(), *([] if labels is None else [labels]))}
    if len(counts) > 1:
        raise SamplesError(f"a batch has {len(first)} samples of '{spec.name}', and other arrays of other lengths")
    for position in range(len(first)):
        row = {name: array[position] for name, array in arrays.items()}
        yield row, None if labels is None else _plain_label(labels[position])


def _is_pair(element: Any, inputs: Sequence[InputSpec]) -> bool:
    """Return whether a list is (inputs, labels), as PyTorch's DataLoader yields it, and not one sample as a list."""
    return isinstance(element, list) and len(element) == 2 and len(inputs) == 1 and all(map(_is_array, element))


def _plain_label(label: Any) -> Any:
    """Return the label of one sample: a number, a text, or a one-hot row."""
    array = np.asarray(label)
    return array.reshape(())[()] if array.size == 1 else array


def _store(path: Path, array: Array, name: str, digest: Any) -> Array | StoredArray:
    """Write an array to a file and return it as one that stays there; what is no array of numbers stays as it is."""
    if array.dtype.kind not in "fiub" or not array.ndim:
        # The check of the inputs names what is wrong.
        return array
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    stored = read_stored(path)
    digest.update(f"{len(name)}:{name}{stored.digest}".encode())
    return stored.arrays["x"]
