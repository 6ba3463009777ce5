"""Promise: the float model runs once for all files that are compared with it, and the figures are the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import classifier, samples
from PIL import Image

from edgepack.digests import sha256
from edgepack.graph import read_model
from edgepack.runtime import evaluate as module
from edgepack.runtime.evaluate import evaluate, kernel_spread
from edgepack.runtime.runner import Runner
from edgepack.samples import SampleSet, load_samples
from edgepack.samples.specs import input_specs

FLOAT = classifier()


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Bytes of each model that was loaded, in a process that has measured nothing yet."""
    loaded: list[int] = []

    class Counting(Runner):
        def __init__(self, tflite: bytes, **options: Any) -> None:
            loaded.append(len(tflite))
            super().__init__(tflite, **options)

    monkeypatch.setattr(module, "Runner", Counting)
    module._last.clear()
    yield loaded
    module._last.clear()


def sample_set(count: int = 6, seed: int = 0) -> SampleSet:
    given = samples(FLOAT, count, seed)
    arrays = {name: np.concatenate([sample[name] for sample in given]) for name in given[0]}
    shapes = {name: array.shape for name, array in given[0].items()}
    digest = sha256(b"".join(array.tobytes() for array in arrays.values()))
    return SampleSet("x", digest, arrays, shapes, {name: array.dtype for name, array in arrays.items()})


def other_weights() -> bytes:
    """Return the model with one weight changed."""
    weights = next(t for t in read_model(FLOAT).main.tensors if t.is_constant and t.is_float and t.elements > 8)
    assert weights.raw is not None
    start = FLOAT.index(weights.raw.tobytes())
    return FLOAT[:start] + np.float32(3.0).tobytes() + FLOAT[start + 4 :]


def test_the_float_model_runs_once(runs: list[int]) -> None:
    """A second file on the same samples loads only itself, and its figures are those of a fresh measurement."""
    given, file = sample_set(), other_weights()
    first = evaluate(FLOAT, {"": file}, given)
    assert len(runs) == 2
    again = evaluate(FLOAT, {"": file}, given)
    assert len(runs) == 3
    same = evaluate(FLOAT, {"": FLOAT}, given)
    assert first == again and same[""].snr_db is None and first[""].snr_db is not None


def test_other_samples_and_other_models_run_anew(runs: list[int]) -> None:
    """The key is the content of both."""
    file = other_weights()
    one, other = evaluate(FLOAT, {"": file}, sample_set()), evaluate(FLOAT, {"": file}, sample_set(seed=1))
    fewer, swapped = evaluate(FLOAT, {"": file}, sample_set().limited(3)), evaluate(file, {"": FLOAT}, sample_set())
    assert len(runs) == 8
    assert len({quality[""].snr_db for quality in (one, other, fewer, swapped)}) == 4


def test_large_outputs_are_not_kept(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the model runs for each file, with the same figures."""
    given, file = sample_set(), other_weights()
    expected = evaluate(FLOAT, {"": file}, given)
    module._last.clear()
    monkeypatch.setattr(module, "_KEPT_BYTES", 100)
    assert [evaluate(FLOAT, {"": file}, given) for _ in range(2)] == [expected] * 2
    assert len(runs) == 6 and not module._last


def test_the_kernels_load_once(runs: list[int]) -> None:
    """The comparison of the kernels loads the model once for all golden vectors."""
    runner = Runner(FLOAT)
    cases = []
    for sample in samples(FLOAT, 3):
        arrays = [sample[info.name] for info in runner.inputs]
        cases.append((arrays, runner.run(arrays)))
    steps, relative = kernel_spread(FLOAT, cases)
    assert len(runs) == 1 and steps == 0 and relative < 1e-4


@pytest.mark.parametrize("kept", [3, 6])
def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """As many as fit stay decoded for the next file, and each file gets the same values."""
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
    pictures, file, decoded = load_samples(str(tmp_path), input_specs(FLOAT)), other_weights(), []
    real = SampleSet.sample
    monkeypatch.setattr(SampleSet, "sample", lambda self, index: (decoded.append(index), real(self, index))[1])
    monkeypatch.setattr(module, "_KEPT_BYTES", kept * 8 * 8 * 3 * 4)
    first = evaluate(FLOAT, {"": file}, pictures)
    assert evaluate(FLOAT, {"": file}, pictures) == first
    assert decoded == [*range(6), *range(kept, 6)]
