"""Every kind of model file converts to a float .tflite with the same outputs and the author's names."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import FloatModel
from edgepack.convert.compare import relative_difference
from edgepack.graph import Model, read_model
from edgepack.runtime import Runner

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
Convert = Callable[..., FloatModel]
Make = Callable[..., Path]


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    names = (*model.input_names(), *model.output_names())
    return {
        n: model.main.tensors[i].shape_signature
        for n, i in zip(names, (*model.main.inputs, *model.main.outputs), strict=True)
    }


def test_the_example_keeps_its_accuracy(converted: Convert) -> None:
    """The embedded .keras converts to a batch-1 float file that classifies its held-out images correctly."""
    result = converted(EXAMPLE / "digits.keras")
    model = read_model(result.tflite)
    assert (result.source_format, result.quantized, model.is_float) == ("keras", False, True)
    assert result.checked is not None and result.checked < 1e-5
    assert shapes(model) == {"image": (1, 8, 8, 1), "digit": (1, 10)}
    runner, held_out = Runner(result.tflite), np.load(EXAMPLE / "eval.npz")
    right = [int(np.argmax(runner.run([x[None]])[0])) == y for x, y in zip(held_out["x"], held_out["y"], strict=True)]
    assert np.mean(right) > 0.98


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("kws_saved_model", "saved_model", {"input_1": (1, 49, 10, 1), "dense": (1, 12)}),
        ("vww_96.h5", "h5", {"input_1": (1, 96, 96, 3), "dense": (1, 2)}),
        ("pretrainedResnet.h5", "h5", {"input_1": (1, 32, 32, 3), "dense": (1, 10)}),
    ],
)
def test_trained_models(
    shared_models: Path, converted: Convert, name: str, source: str, expected: dict[str, tuple[int, ...]]
) -> None:
    """MLPerf Tiny's trained models convert with the original's outputs, names and order, and batch 1."""
    result = converted(shared_models / "mlperf-tiny" / name)
    assert (result.source_format, result.quantized, result.notes) == (source, False, ())
    assert result.checked is not None and result.checked < 1e-5
    model = read_model(result.tflite)
    assert shapes(model) == expected
    assert model.signature is not None and model.signature.key == "serving_default"
    assert not any(op.custom_code for op in model.main.ops)


def test_keyword_spotting_keeps_its_accuracy(shared_models: Path, converted: Convert) -> None:
    """The keyword-spotting SavedModel has the accuracy that its authors report after conversion, too."""
    folder = shared_models / "mlperf-tiny"
    runner, samples = Runner(converted(folder / "kws_saved_model").tflite), np.load(folder / "kws_samples.npz")
    labels = samples["y"] if "y" in samples else samples["labels"]
    inputs = next(samples[key] for key in samples.files if samples[key].ndim == 4)
    right = [
        int(np.argmax(runner.run([x[None].astype(np.float32)])[0])) == y for x, y in zip(inputs, labels, strict=True)
    ]
    assert np.mean(right) > 0.90


def test_same_model_same_bytes(shared_models: Path, converted: Convert, make: Make) -> None:
    """A model converts to the same bytes again, whatever the child process converted in between."""
    paths = [EXAMPLE / "digits.keras", shared_models / "mlperf-tiny" / "kws_saved_model", make("lstm", "lstm.keras")]
    options = [{}, {}, {"input_shapes": {"steps": (1, 7, 5)}}]
    first = [converted(path, **how).tflite for path, how in zip(paths, options, strict=True)]
    again = [converted(path, **how).tflite for path, how in zip(paths, options, strict=True)]
    assert first == again


@pytest.mark.parametrize(
    ("build", "inputs", "outputs"),
    [
        ("two_in_three_out", ("image", "token"), ("where_0", "where_1", "score")),
        ("listed", ("zebra", "ant", "unused"), ("yak", "bee")),
    ],
)
def test_several_inputs_and_outputs(
    tensorflow_worker: Worker,
    converted: Convert,
    make: Make,
    build: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> None:
    """Nested and repeated inputs and outputs keep their names, order and values."""
    path = make(build, f"{build}.keras")
    result = converted(path)
    model = read_model(result.tflite)
    assert (model.input_names(), model.output_names()) == (inputs, outputs)
    runner, random = Runner(result.tflite), np.random.default_rng(3)
    inputs_by_name = {
        info.name: random.integers(0, 9, info.shape).astype(info.dtype)
        if info.dtype.kind == "i"
        else random.normal(size=info.shape).astype(info.dtype)
        for info in runner.inputs
    }
    expected = tensorflow_worker.call("convert_models:outputs_of", str(path), inputs_by_name)
    assert relative_difference(expected, runner.run([inputs_by_name[name] for name in inputs])) < 1e-4


@pytest.mark.parametrize("build", ["of_tf_keras", "sequential", "nested"])
def test_keras_files_of_every_kind(converted: Convert, make: Make, build: str) -> None:
    """Archives of tf-keras, Sequential models and nested models convert with the names of their layers."""
    model = read_model(converted(make(build, "m.keras")).tflite)
    assert (model.input_names(), model.output_names()) == (("x",), ("y",))


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_mixed_precision_becomes_float32(converted: Convert, make: Make, name: str) -> None:
    """A model trained in mixed precision converts to a float32 file, with a note."""
    result = converted(make("mixed", name))
    assert result.notes == ("the model's mixed precision (mixed_float16) became float32",)
    assert read_model(result.tflite).is_float


def test_legacy_inputs_keep_their_order(converted: Convert, make: Make) -> None:
    """A tf-keras .h5 keeps the names and order of its inputs and outputs."""
    model = read_model(converted(make("legacy_two_inputs", "two.h5")).tflite)
    assert (model.input_names(), model.output_names()) == (("zebra", "ant"), ("total", "out"))


def test_the_documented_call_stands_in(shared_models: Path, tensorflow_worker: Worker) -> None:
    """If freezing first fails, TFLiteConverter's documented call gives the same names and results, with a note."""
    for path, names in (
        (EXAMPLE / "digits.keras", ("image", "digit")),
        (shared_models / "mlperf-tiny" / "kws_saved_model", ("input_1", "dense")),
    ):
        tflite, difference, notes, _ = tensorflow_worker.call("convert_models:without_freezing", str(path))
        model = read_model(tflite)
        assert (*model.input_names(), *model.output_names()) == names
        assert not any(tensor.is_dynamic for tensor in model.main.tensors)
        assert difference < 1e-4
        assert "deliberate failure" in notes[0]


def test_an_untrained_model_is_noted(converted: Convert, make: Make) -> None:
    """If every input gives the same output, a note says that the comparison proves little."""
    assert "proves little" in converted(make("untrained", "zero.keras")).notes[0]
    assert converted(EXAMPLE / "digits.keras").notes == ()


def test_recurrent_model(tensorflow_worker: Worker, converted: Convert, make: Make) -> None:
    """A Keras LSTM with a dynamic number of steps converts with --input-shape, to builtin ops only."""
    path = make("lstm", "lstm.keras")
    result = converted(path, input_shapes={"steps": (1, 7, 5)})
    model = read_model(result.tflite)
    assert not any(op.custom_code for graph in model.graphs for op in graph.ops)
    x = np.random.default_rng(0).normal(size=(1, 7, 5)).astype(np.float32)
    expected = tensorflow_worker.call("convert_models:outputs_of", str(path), {"steps": x})
    assert relative_difference(expected, Runner(result.tflite).run([x])) < 1e-4


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ("tf1_style", {"features": (1, 6), "probabilities": (1, 3)}),
        ("exported", {"x": (1, 6), "output_0": (1, 3)}),
    ],
)
def test_saved_models_of_every_age(
    converted: Convert, make: Make, build: str, expected: dict[str, tuple[int, ...]]
) -> None:
    """SavedModels of TensorFlow 1 and of Keras 3's export convert with the names in their signature."""
    assert shapes(read_model(converted(make(build, build)).tflite)) == expected


@pytest.mark.parametrize(("signature", "names"), [("encode", ("x", "code")), ("decode", ("code", "x"))])
def test_a_chosen_signature(converted: Convert, make: Make, signature: str, names: tuple[str, str]) -> None:
    """The requested signature is converted and keeps its key."""
    model = read_model(converted(make("two_signatures", "pair"), signature=signature).tflite)
    assert (*model.input_names(), *model.output_names()) == names
    assert model.signature is not None and model.signature.key == signature


def test_format_is_told_from_bytes(converted: Convert, tmp_path: Path) -> None:
    """A Keras archive with another suffix is recognized by its content."""
    other = tmp_path / "model.bin"
    other.write_bytes((EXAMPLE / "digits.keras").read_bytes())
    assert zipfile.is_zipfile(other)
    assert converted(other).source_format == "keras"


def test_the_example_file_is_what_its_script_makes(converted: Convert) -> None:
    """tests/data/digits_float.tflite has the same outputs as a fresh conversion of the example."""
    committed = (Path(__file__).resolve().parents[1] / "data" / "digits_float.tflite").read_bytes()
    x = np.load(EXAMPLE / "eval.npz")["x"][:1]
    fresh = converted(EXAMPLE / "digits.keras").tflite
    assert relative_difference(Runner(committed).run([x]), Runner(fresh).run([x])) < 1e-6
