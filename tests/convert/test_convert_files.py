"""Files that are not models, and .tflite files: neither needs TensorFlow."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, FloatModel, convert
from edgepack.convert.compare import missing_weights, relative_difference
from edgepack.convert.importers.registry import importer_for
from edgepack.convert.interface import plain_name
from edgepack.convert.original import named_leaves, rebuilt, unique
from edgepack.errors import ConversionError, ModelFileError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.quantize.float16 import to_float16
from edgepack.runtime import Runner
from edgepack.untrusted.keras_code import find_code

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "digits" / "digits.keras"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"


def write_zip(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def truncated(path: Path) -> None:
    path.write_bytes(EXAMPLE.read_bytes()[:-2000])


def flipped(path: Path) -> None:
    data = bytearray(EXAMPLE.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("gone.keras", lambda p: None, "No such file"),
        ("empty.keras", lambda p: p.write_bytes(b""), "is empty"),
        ("text.keras", lambda p: p.write_text("hello, I am a text\n"), "not a model edgepack can read"),
        ("cut.keras", truncated, "broken zip archive"),
        ("flipped.keras", flipped, "damaged|broken zip archive"),
        ("other.zip", lambda p: write_zip(p, {"a.txt": "x"}), "without config.json"),
        ("weightless.keras", lambda p: write_zip(p, {"config.json": "{}"}), "model.weights.h5 is missing"),
        ("list.keras", lambda p: write_zip(p, {"config.json": "[]", "model.weights.h5": ""}), "cannot be read"),
        ("badjson.keras", lambda p: write_zip(p, {"config.json": "{", "model.weights.h5": ""}), "cannot be read"),
        ("folder", lambda p: p.mkdir(), "folder without saved_model.pb: it is empty"),
        ("lfs.tflite", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        ("cut.tflite", lambda p: p.write_bytes(FLOAT.read_bytes()[:4000]), "corrupt"),
        ("saved_model.pb", lambda p: p.write_bytes(b"\x08\x01"), "one file of a SavedModel"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, name: str, write: Callable[[Path], object], message: str) -> None:
    """A file that is not a model is refused with one sentence; only a child process parses the JSON of an archive."""
    path = tmp_path / name
    write(path)
    with Worker() as worker:
        with pytest.raises(ModelFileError, match=message):
            convert(path, worker=worker, options=ConvertOptions())
        assert worker.started == (message == "cannot be read")


@pytest.mark.parametrize("size", [0, 1, 7, 100, 2000])
def test_broken_saved_models(tensorflow_worker: Worker, shared_models: Path, tmp_path: Path, size: int) -> None:
    """A truncated saved_model.pb gives one error, wherever it was cut."""
    data = (shared_models / "mlperf-tiny" / "kws_saved_model" / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(data[:size])
    with pytest.raises(ModelFileError, match=r"corrupt|no graph"):
        convert(tmp_path, worker=tensorflow_worker, options=ConvertOptions())


def test_a_folder_above_the_model_is_pointed_down(tmp_path: Path) -> None:
    """For the parent folder of a SavedModel, the hint names the SavedModel's folder."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelFileError) as caught:
        importer_for(tmp_path)
    assert str(tmp_path / "export") in caught.value.hint


def test_a_float_tflite_passes_as_it_is() -> None:
    """A static .tflite is returned byte for byte, without loading TensorFlow or starting a child process."""
    code = (
        "import sys; from pathlib import Path; from edgepack.child import Worker; from edgepack.convert import *\n"
        "worker = Worker(); path = Path(sys.argv[1])\n"
        "result = convert(path, worker=worker, options=ConvertOptions())\n"
        "assert result.tflite == path.read_bytes() and not worker.started\n"
        "assert (result.source_format, result.quantized, result.checked) == ('tflite', False, None)\n"
        "assert not {'tensorflow', 'keras', 'tf_keras', 'h5py'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FLOAT)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_quantized_files_are_told(shared_models: Path) -> None:
    """A quantized .tflite is returned unchanged and marked as quantized."""
    path = shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    with Worker() as worker:
        result = convert(path, worker=worker, options=ConvertOptions())
    assert result.quantized and result.tflite == path.read_bytes()


def test_float16_weights_count_as_float(tmp_path: Path) -> None:
    """A .tflite with float16 weights is read as the float model that it was stored from, and a note says so."""
    path = tmp_path / "half.tflite"
    path.write_bytes(to_float16(FLOAT.read_bytes()))
    with Worker() as worker:
        result = convert(path, worker=worker, options=ConvertOptions())
    assert not result.quantized and read_model(result.tflite).is_float
    assert "float16" in result.notes[0]


def resized(path: Path, x: np.ndarray) -> np.ndarray:
    """Run a file with dynamic dimensions like an app: resize, then invoke."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


@pytest.mark.slow
def test_open_dimensions_of_a_tflite_are_fixed(
    make: Callable[..., Path], converted: Callable[..., FloatModel], tmp_path: Path
) -> None:
    """A dynamic batch of a .tflite becomes 1, other dimensions the requested sizes; its results stay the same."""
    batch = make("dynamic_tflite", "batch.tflite", 8)
    both = make("dynamic_tflite", "both.tflite", None)
    with pytest.raises(ConversionError) as caught:
        converted(both)
    assert "--input-shape image=1,224,8,3" in caught.value.hint
    for path, options, shape in (
        (batch, {}, (1, 8, 8, 3)),
        (both, {"input_shapes": {"image": (1, 12, 8, 3)}}, (1, 12, 8, 3)),
    ):
        result = converted(path, **options)
        model = read_model(result.tflite)
        assert model.main.tensors[model.main.inputs[0]].shape_signature == shape
        assert not any(tensor.is_dynamic for tensor in model.main.tensors)
        assert "image" in result.notes[0]
        x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        assert relative_difference([resized(path, x)], Runner(result.tflite).run([x])) < 1e-6


def test_code_is_found_wherever_it_hides() -> None:
    """Lambdas, objects of other modules and registered classes are found at any depth; objects of Keras are not."""
    own = json.loads(zipfile.ZipFile(EXAMPLE).read("config.json"))
    assert not list(find_code({k: v for k, v in own.items() if k != "compile_config"}))
    foreign = {"module": "evil.mod", "class_name": "function", "config": "run", "registered_name": "function"}
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "kernel_initializer": foreign}}
    inner = {"module": "keras", "class_name": "Sequential", "config": {"name": "inner", "layers": [dense]}}
    registered = {"module": None, "class_name": "Mine", "registered_name": "Pack>Mine", "config": {"name": "m"}}
    codes = list(find_code({"class_name": "Functional", "config": {"name": "net", "layers": [inner, registered]}}))
    assert [(code.layer, code.what) for code in codes] == [("inner/d", "evil.mod.run"), ("m", "Pack>Mine")]
    helper = {"module": "keras.utils", "class_name": "function", "config": "get_file"}
    assert [code.what for code in find_code(helper)] == ["keras.utils.get_file"]
    lookalike = {"module": "keras_evil", "class_name": "X", "config": {"name": "x"}}
    assert [code.what for code in find_code(lookalike)] == ["keras_evil.X"]


def test_structures_keep_their_order_and_names() -> None:
    """Nested inputs and outputs are flattened in their own order, not alphabetically, and can be rebuilt."""
    structure = {"z": [1, {"a": 2}], "b": (3,), "c": 4}
    assert named_leaves(structure) == [("z_0", 1), ("z_1_a", 2), ("b_0", 3), ("c", 4)]
    assert rebuilt(structure, [5, 6, 7, 8]) == {"z": [5, {"a": 6}], "b": [7], "c": 8}
    assert unique(["a", "b", "a", "a_1", "a"]) == ["a", "b", "a_2", "a_1", "a_3"]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("StatefulPartitionedCall/StatefulPartitionedCall/net/relu/Relu;net/conv/BiasAdd;6012", "net/relu/Relu"),
        ("6012;net/conv/Conv2D", "net/conv/Conv2D"),
        ("PartitionedCall:0", "PartitionedCall:0"),
        ("while_body@__inference_standard_lstm_1234", "while_body@standard_lstm"),
        ("6012", ""),
    ],
)
def test_names_carry_no_counters(raw: str, plain: str) -> None:
    """Call prefixes and counters that differ from run to run are removed from tensor names."""
    assert plain_name(raw) == plain


def test_lost_weights_are_seen() -> None:
    """A file without its weights, as the converter writes it for some unfrozen functions, is detected."""
    tflite = FLOAT.read_bytes()
    variables = {t.name: t.shape for t in read_model(tflite).main.tensors if t.is_constant and t.is_float}
    assert missing_weights(read_model(tflite), variables) == ""
    model = unpack(tflite)
    for tensor in model.subgraphs[0].tensors:
        if len(tensor.shape) >= 2:
            model.buffers[tensor.buffer].data = None
    assert "weights, the original has" in missing_weights(read_model(pack(model)), variables)


def test_relative_difference() -> None:
    """The difference is relative to the largest value of its output; NaN and shape differences are infinite."""
    a = np.array([0.0, 10.0], np.float32)
    assert relative_difference([a], [a + np.float32(0.001)]) == pytest.approx(1e-4, rel=1e-3)
    assert relative_difference([a], [np.array([np.nan, 10.0])]) == float("inf")
    assert relative_difference([a], [a[:1]]) == float("inf")
    assert relative_difference([np.array([np.nan])], [np.array([np.nan])]) == 0.0
