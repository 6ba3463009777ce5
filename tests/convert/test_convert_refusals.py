"""Conversion refuses a model with one clear error, before any code of the model runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import convert_models
import numpy as np
import pytest

from edgepack.child import Job, Worker
from edgepack.convert import ConvertOptions, FloatModel, child, convert
from edgepack.convert.importers.base import LOG_NAME
from edgepack.errors import ConversionError, ModelFileError, UsageError
from edgepack.graph import read_model
from edgepack.runtime import Runner

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.keras"
Convert = Callable[..., FloatModel]
Make = Callable[..., Path]


@pytest.mark.parametrize(("build", "name"), [("with_lambda", "m.keras"), ("legacy_lambda", "m.h5")])
def test_lambda_layers_need_leave(converted: Convert, make: Make, build: str, name: str) -> None:
    """A Lambda layer is refused by name, with the flag that allows it; with the flag, the model converts."""
    path = make(build, name)
    with pytest.raises(ConversionError, match="layer 'twice' \\(Lambda\\)") as caught:
        converted(path)
    assert "--allow-code" in caught.value.hint
    result = converted(path, allow_code=True)
    x = np.array([[1, 2, 3, 4]], np.float32)
    expected = x * 2 + (1 if build == "with_lambda" else 0)
    np.testing.assert_allclose(Runner(result.tflite).run([x])[0], expected, rtol=1e-6)


def test_custom_classes_need_leave(
    converted: Convert, make: Make, tmp_path: Path, tensorflow_worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer class of the user's own module is refused by name; with --allow-code, its module is imported."""
    path = make("with_custom_layer", "m.keras", str(tmp_path))
    with pytest.raises(ConversionError, match=r"layer 'halve' \(user_layers\.Halve\) is not part of Keras"):
        converted(path)
    monkeypatch.syspath_prepend(tmp_path)
    with Worker() as fresh:
        result = convert(path, worker=fresh, options=ConvertOptions(allow_code=True), timeout=300)
    np.testing.assert_allclose(Runner(result.tflite).run([np.ones((1, 4), np.float32)])[0], 0.5 * np.ones((1, 4)))


@pytest.mark.parametrize(
    ("build", "op"), [("writes_a_file", "WriteFile writes a file"), ("saves_in_call", "SaveV2 writes a file")]
)
def test_saved_models_that_write_files(converted: Convert, make: Make, tmp_path: Path, build: str, op: str) -> None:
    """A SavedModel that would write a file is refused, and no file is written."""
    target = tmp_path / "stolen"
    path = make(build, "spy", str(target))
    with pytest.raises(ConversionError, match=op) as caught:
        converted(path)
    assert "--allow-code" in caught.value.hint
    assert not list(tmp_path.glob("stolen*"))


def test_printing_to_a_file_is_writing(converted: Convert, make: Make, tmp_path: Path) -> None:
    """tf.print to a file is refused."""
    with pytest.raises(ConversionError, match="PrintV2 writes a file"):
        converted(make("prints", "printing", f"file://{tmp_path}/out"))


def test_broken_hdf5(converted: Convert, make: Make, shared_models: Path, tmp_path: Path) -> None:
    """A truncated .h5 and one with weights only give different errors."""
    cut = tmp_path / "cut.h5"
    cut.write_bytes((shared_models / "mlperf-tiny" / "vww_96.h5").read_bytes()[:100_000])
    with pytest.raises(ModelFileError, match="broken HDF5"):
        converted(cut)
    with pytest.raises(ModelFileError, match="weights without a model"):
        converted(make("weights_only", "m.weights.h5"))


def test_broken_variables(converted: Convert, shared_models: Path, tmp_path: Path) -> None:
    """A SavedModel with truncated or missing variables is a broken file, not a crash."""
    for damage in ("truncated", "missing"):
        folder = tmp_path / damage
        shutil.copytree(shared_models / "mlperf-tiny" / "kws_saved_model", folder)
        (folder / "variables").chmod(0o755)
        data = folder / "variables" / "variables.data-00000-of-00001"
        content = data.read_bytes()
        data.unlink()
        if damage == "truncated":
            data.write_bytes(content[:1000])
        with pytest.raises(ModelFileError, match="broken SavedModel"):
            converted(folder)


def test_open_dimensions_name_the_flag(converted: Convert, make: Make) -> None:
    """The error for dynamic dimensions besides the batch names the input and the exact flag, and that flag works."""
    path = make("any_size", "any.keras")
    with pytest.raises(ConversionError, match=r"'image' .*\(\?, \?, \?, 3\)") as caught:
        converted(path)
    assert "--input-shape image=1,224,224,3" in caught.value.hint
    model = read_model(converted(path, input_shapes={"image": (1, 20, 30, 3)}).tflite)
    assert model.main.tensors[model.main.inputs[0]].shape_signature == (1, 20, 30, 3)
    assert not any(tensor.is_dynamic for tensor in model.main.tensors)


def test_shapes_that_do_not_fit(converted: Convert) -> None:
    """A shape that contradicts the model, and an unknown input, are refused with the expected values."""
    with pytest.raises(ConversionError, match=r"expected \(\?, 8, 8, 1\)"):
        converted(EXAMPLE, input_shapes={"image": (1, 9, 9, 1)})
    with pytest.raises(UsageError, match="'picture'") as caught:
        converted(EXAMPLE, input_shapes={"picture": (1, 8, 8, 1)})
    assert caught.value.hint == "its inputs are: image"


def test_signatures_are_listed(converted: Convert, make: Make) -> None:
    """The errors for several signatures without a default, and for an unknown one, list the signatures."""
    path = make("two_signatures", "pair")
    for options in ({}, {"signature": "train"}):
        with pytest.raises(UsageError) as caught:
            converted(path, **options)
        assert "decode, encode" in caught.value.hint


def test_missing_ops_are_named(converted: Convert, make: Make, tmp_path: Path) -> None:
    """An op that TFLite does not have is named, with a hint and the converter's log in a file."""
    with pytest.raises(ConversionError, match="does not have: Betainc") as caught:
        converted(make("missing_op", "special"))
    assert caught.value.details["ops"] == ["Betainc"]
    assert "Select TF ops" in caught.value.hint
    log = tmp_path / "logs" / LOG_NAME
    assert str(log) in caught.value.hint
    assert "tf.Betainc" in log.read_text()


def test_random_models_are_not_called_broken(converted: Convert, make: Make) -> None:
    """A model with random outputs gives another error than a failed conversion."""
    with pytest.raises(ConversionError, match="different outputs for the same input"):
        converted(make("random_output", "noise"))


def test_a_crash_is_one_error_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process that aborts gives one error that names the signal and the file with the end of the log."""
    monkeypatch.setattr(child, "CONVERT", Job(convert_models.abort, ConversionError, "aborting"))
    with Worker() as worker, pytest.raises(ConversionError, match="SIGABRT") as caught:
        convert(EXAMPLE, worker=worker, options=ConvertOptions(), log_dir=tmp_path)
    assert str(tmp_path / LOG_NAME) in caught.value.hint
    assert "LLVM ERROR" in (tmp_path / LOG_NAME).read_text()


def test_a_time_limit_is_kept(tmp_path: Path) -> None:
    """A conversion that exceeds the time limit is stopped; the worker can be used afterwards."""
    with Worker() as worker:
        with pytest.raises(ConversionError, match=r"limit of 0\.5 seconds"):
            convert(EXAMPLE, worker=worker, options=ConvertOptions(), timeout=0.5, log_dir=tmp_path)
        assert worker.call("os.path:join", "a", "b") == "a/b"


@pytest.mark.parametrize(
    ("build", "named", "hint"),
    [
        ("argmax_of_keras_ops", r"BitwiseAnd .*through keras\.ops\.argmax", "before the class choice"),
        ("float64_layer", "computes in float64", "float32"),
    ],
)
def test_missing_ops_are_told_in_the_models_own_terms(
    converted: Convert, make: Make, build: str, named: str, hint: str
) -> None:
    """The error names the function of keras.ops that the author wrote, or the data type, not only TensorFlow's ops."""
    with pytest.raises(ConversionError, match=named) as caught:
        converted(make(build, "m.keras"))
    assert hint in caught.value.hint
