"""Samples in memory are read as far as needed, and refused with the messages that files get."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.errors import SamplesError
from edgepack.samples import InputSpec, SampleSet, load_samples
from edgepack.samples import objects as module
from edgepack.samples.objects import InMemorySamples

IMAGE = [InputSpec("image", (1, 4, 4, 1), np.dtype(np.float32))]
TWO = [InputSpec("a", (1, 3), np.dtype(np.float32)), InputSpec("b", (1, 2), np.dtype(np.float32))]
X = np.random.default_rng(0).normal(size=(10, 4, 4, 1)).astype(np.float32)
Y = np.arange(10) % 3


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., SampleSet]:
    numbers = itertools.count()

    def load(value: Any, inputs: list[InputSpec] = IMAGE, limit: int | None = None) -> SampleSet:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return load_samples(InMemorySamples(value, "samples", folder, limit), inputs)

    return load


def batches(size: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(X), size):
        yield X[start : start + size], Y[start : start + size]


LABELLED = {
    "tuple": lambda: (X, Y),
    "weights": lambda: (X, Y, np.ones(10)),
    "dict": lambda: {"image": X, "y": Y},
    "other names": lambda: {"pixels": X, "label": Y},
    "one-hot": lambda: (X, np.eye(3)[Y]),
    "column": lambda: (X, Y[:, None]),
    "samples": lambda: zip(X, Y, strict=True),
    "batches": lambda: batches(4),
    "lists of pairs": lambda: [[X[:5], Y[:5]], [X[5:], Y[5:]]],
    "dicts": lambda: [{"image": x, "label": y} for x, y in zip(X, Y, strict=True)],
    "one-hot batches": lambda: [(x, np.eye(3)[y]) for x, y in batches(3)],
    "function": lambda: lambda: batches(2),
}


@pytest.mark.parametrize("form", LABELLED)
def test_every_form_gives_the_same_samples(read: Callable[..., SampleSet], form: str) -> None:
    """An array with labels has the same samples and labels in every form in which programs pass it."""
    samples = read(LABELLED[form]())
    assert len(samples) == 10
    np.testing.assert_array_equal(np.concatenate([samples.sample(i)["image"] for i in range(10)]), X)
    assert samples.labels is not None
    np.testing.assert_array_equal(samples.labels, Y)


UNLABELLED = {
    "array": lambda: X,
    "list": lambda: list(X),
    "nested lists": X.tolist,
    "representative dataset": lambda: lambda: ([x[None]] for x in X),
    "dict": lambda: {"image": X},
    "other order": lambda: np.asfortranarray(X),
}


@pytest.mark.parametrize("form", UNLABELLED)
def test_samples_without_labels(read: Callable[..., SampleSet], form: str) -> None:
    """So do samples without labels, TFLite's representative_dataset among them."""
    samples = read(UNLABELLED[form]())
    np.testing.assert_allclose(np.concatenate([samples.sample(i)["image"] for i in range(10)]), X, rtol=1e-6)
    assert samples.labels is None


@pytest.mark.parametrize("form", ["dict", "tuple of inputs", "items", "tuple with labels"])
def test_several_inputs(read: Callable[..., SampleSet], form: str) -> None:
    """A model with several inputs takes dicts by name, or as many arrays as it has inputs, in their order."""
    a, b = np.ones((5, 3), np.float32), np.full((5, 2), 2, np.float32)
    value = {
        "dict": {"a": a, "b": b},
        "tuple of inputs": (a, b),
        "items": list(zip(a, b, strict=True)),
        "tuple with labels": ((a, b), np.zeros(5)),
    }[form]
    samples = read(value, TWO)
    assert samples.sample(0)["a"].tolist() == [[1, 1, 1]] and samples.sample(4)["b"].tolist() == [[2, 2]]
    assert (samples.labels is not None) == (form == "tuple with labels")


def test_content_decides_about_the_digest(read: Callable[..., SampleSet]) -> None:
    """Equal values in other objects have one digest, so that the cache finds them; other values or labels have not."""
    first, again = read((X, Y)).digest, read((X.copy(), list(Y))).digest
    assert first == again
    assert len({first, read((X + 1, Y)).digest, read((X, Y[::-1])).digest, read(X).digest}) == 4


def test_only_what_is_needed_is_read(read: Callable[..., SampleSet]) -> None:
    """An endless iterable is read up to the limit; of an array, samples are taken evenly as from a file."""
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield X[taken % 10]

    assert len(read(endless(), limit=7)) == 7
    assert taken == 7
    even = read((X, Y), limit=4)
    assert even.labels is not None and even.labels.tolist() == Y[[0, 3, 6, 9]].tolist()
    assert even.sample(3)["image"].tolist() == X[9:].tolist()


def test_an_endless_evaluation_is_refused(read: Callable[..., SampleSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation samples have no limit of their own: what never ends is refused, by what it holds."""
    monkeypatch.setattr(module, "MOST_ITEMS", 50)
    with pytest.raises(SamplesError, match="more than") as caught:
        read(itertools.cycle(X))
    assert "limit" in caught.value.hint


MISTAKES = {
    "channels first": (X.transpose(0, 3, 1, 2)[:, :, :2], "expected shape"),
    "one sample": (X[0], "expected shape"),
    "fewer labels": ((X, Y[:4]), r"labels have shape \[4\], expected \[10\]"),
    "fractions": ((X, Y * 0.5), "not whole numbers"),
    "NaN labels": ((X, np.full(10, np.nan)), "not whole numbers"),
    "negative labels": ((X, Y - 1), "class indices start at 0"),
    "texts": (np.array([["a"]] * 10), "expected numbers"),
    "objects": ([object(), object()], "expected"),
    "other lengths": ([X[0], X[0, :2]], "differ in shape"),
    "empty": ([], "are empty"),
    "a number": (3, "expected samples, got int"),
    "None inside": ([None], "expected"),
    "missing input": ({"a": np.ones((3, 3)), "c": np.ones((3, 2))}, "lack the input"),
    "some labels": ([(X[0], 1), (X[1], None)], "have no label"),
    "four entries": ((X, Y, Y, Y), "expected a tuple of inputs and labels"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_clear_error(read: Callable[..., SampleSet], mistake: str) -> None:
    """Wrong shapes, types and labels are SamplesErrors that name the argument."""
    value, message = MISTAKES[mistake]
    with pytest.raises(SamplesError, match=message):
        read(value, TWO if mistake == "missing input" else IMAGE)


def test_an_error_of_the_program_is_its_cause(read: Callable[..., SampleSet]) -> None:
    """What the caller's generator raises is named, and is the cause of the error."""

    def broken() -> Iterator[Any]:
        yield X[0]
        raise KeyError("column")

    with pytest.raises(SamplesError, match="KeyError") as caught:
        read(broken())
    assert isinstance(caught.value.__cause__, KeyError)
