"""Models that Keras's own API makes need no flag, and code is refused by conversion and training before it runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, convert
from edgepack.errors import ConversionError

pytestmark = pytest.mark.slow

#: Layers whose purpose is foreign code.
CODE_LAYERS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A child process with TensorFlow."""
    with Worker(writable=[tmp_path_factory.getbasetemp()]) as one:
        yield one


def test_architectures_are_harmless(worker: Worker) -> None:
    """Nothing in architectures of keras.applications is called code."""
    found = worker.call("keras_models:flags_of_applications")
    assert len(found) >= 4
    assert {name: flags for name, flags in found.items() if flags} == {}


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_layers_are_harmless(worker: Worker, library: str) -> None:
    """Nothing in any layer of both Keras versions is called code, but for layers that run functions."""
    found = worker.call("keras_models:flags_of_layers", library)
    assert len(found) >= 90
    assert {name: flags for name, flags in found.items() if flags and name not in CODE_LAYERS} == {}


def test_arithmetic_between_layers_is_harmless(worker: Worker) -> None:
    """Operators, slices and functions that compute on tensors are not called code."""
    found = worker.call("keras_models:flags_of_graphs")
    assert len(found) >= 25
    assert {name: flags for name, flags in found.items() if flags} == {}


def test_wrappers_and_columns_are_harmless(worker: Worker, tmp_path: Path) -> None:
    """Cell wrappers, feature columns, TensorFlow Model Optimization's wrappers and vocabularies are not called code."""
    found = worker.call("keras_extensions:flags", str(tmp_path))
    assert len(found) >= 9
    assert {name: flags for name, flags in found.items() if flags} == {}


def test_the_lists_know_the_installed_packages(worker: Worker) -> None:
    """A new Keras or TensorFlow with names in no list fails here: run scripts/derive_keras_objects and review."""
    assert worker.call("keras_models:new_names") == []


def test_harmless_models_convert(worker: Worker, tmp_path: Path) -> None:
    """Models of a dozen kinds convert without a flag."""
    names = worker.call("converted_models:write_all", str(tmp_path))
    assert len(names) == len(list(tmp_path.iterdir())) >= 12
    for path in sorted(tmp_path.iterdir()):
        assert convert(path, worker=worker, options=ConvertOptions(), timeout=300).tflite, path.name


def test_files_are_not_written(worker: Worker, tmp_path: Path) -> None:
    """A call of tf.io.write_file in a model is refused by conversion and training, and nothing is written."""
    path, target = tmp_path / "m.h5", tmp_path / "stolen"
    worker.call("keras_models:code_that_writes", str(path), str(target))
    with pytest.raises(ConversionError, match=r"tf\.io\.write_file"):
        convert(path, worker=worker, options=ConvertOptions(), timeout=300)
    with pytest.raises(ConversionError, match=r"tf\.io\.write_file"):
        worker.call("edgepack.training.load:load", path, allow_code=False)
    assert not target.exists()
