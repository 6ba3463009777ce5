"""Code in Keras files: what is not in the lists of harmless names is refused; what is examined is what is loaded."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgepack.errors import ConversionError, ModelFileError
from edgepack.untrusted.keras_code import find_code
from edgepack.untrusted.keras_file import open_keras_file


def layer(kind: str, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": kind.lower(), **(config or {})}, **more}


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Functional", "config": {"name": "net", "layers": list(layers)}}


def function(name: str, module: str) -> dict[str, Any]:
    return {"class_name": "function", "module": module, "config": name, "registered_name": "function"}


def call(name: str) -> dict[str, Any]:
    return layer("TFOpLambda", {"function": name})


NODE = {"name": "x", "op": "WriteFile", "input": ["a", "b"]}
DENSE = layer("Dense", {"kernel_initializer": function("run", "evil")}, module="keras.layers")
MARSHALLED = {"class_name": "__lambda__", "config": {"code": "4wEAAA==", "defaults": None, "closure": None}}

CODE: dict[str, dict[str, Any]] = {
    "tf.io.write_file": call("io.write_file"),
    "tf.load_op_library": call("load_op_library"),
    "tf.load_library": call("load_library"),
    "tf.io.gfile.copy": call("io.gfile.copy"),
    "tf.compat.v1.gfile.Copy": call("compat.v1.gfile.Copy"),
    "tf.raw_ops.WriteFile": call("raw_ops.WriteFile"),
    "tf.raw_ops.ReadFile": call("raw_ops.ReadFile"),
    "tf.py_function": call("py_function"),
    "tf.print": call("print"),
    "tf.saved_model.load": call("saved_model.load"),
    "tf.keras.utils.get_file": call("keras.utils.get_file"),
    "fixed_unigram_candidate_sampler": call("random.fixed_unigram_candidate_sampler"),
    "debug dumps": call("debugging.experimental.enable_dump_debug_info"),
    "slicing": layer("SlicingOpLambda", {"function": "io.read_file"}),
    "class method": layer("ClassMethod", {"cls_symbol": "io.gfile.GFile", "method_name": "write"}),
    "method": layer("InstanceMethod", {"attr_name": "__reduce__"}),
    "property": layer("InstanceProperty", {"attr_name": "__globals__"}),
    "op in JSON": layer("TensorFlowOpLayer", {"node_def": NODE}),
    "op in binary": layer("TensorFlowOpLayer", {"node_def": "\n\x01x\x12\tWriteFile"}),
    "Lambda": layer("Lambda", {"function": MARSHALLED}),
    "lambda as an activation": layer("Dense", {"activation": MARSHALLED}),
    "lambda as standardization": layer("TextVectorization", {"standardize": MARSHALLED}),
    "TFSMLayer": layer("TFSMLayer", {"filepath": "/tmp/x"}),
    "TorchModuleWrapper": layer("TorchModuleWrapper", {"module": "gASV"}),
    "JaxLayer": layer("JaxLayer"),
    "cell wrapper": layer("RNN", {"cell": layer("ResidualWrapper", {"residual_function_type": "lambda"})}),
    "function type": layer("Dense", {"residual_function_type": "lambda", "residual_function": ["4wE="]}),
    "function of a cell wrapper": layer("ResidualWrapper", {"residual_fn": "relu", "residual_fn_type": "function"}),
    "module of a cell wrapper": layer("DropoutWrapper", {"dropout_fn_module": "os"}),
    "function of a feature column": layer(
        "DenseFeatures", {"columns": [layer("NumericColumn", {"normalizer_fn": "f"})]}
    ),
    "file of a feature column": layer("VocabularyFileCategoricalColumn", {"vocabulary_file": "/etc/passwd"}),
    "checkpoint of a feature column": layer("EmbeddingColumn", {"ckpt_to_load_from": "/tmp/x"}),
    "TensorFlow's module, other name": layer("py_func", module="tensorflow.python.ops.init_ops_v2"),
    "look-alike of TFMOT": layer("QuantizeWrapperV2", module="tensorflow_model_optimization_evil.keras"),
    "TFMOT's module, other class": layer("Evil", module="tensorflow_model_optimization.python.core"),
    "cell": layer("RNN", {"cell": layer("Cell", module="evil.cells", registered_name="Cell")}),
    "TimeDistributed": layer("TimeDistributed", {"layer": call("io.write_file")}),
    "Bidirectional": layer("Bidirectional", {"layer": layer("LSTM"), "backward_layer": layer("Mine", module="evil")}),
    "initializer": DENSE,
    "initializer's name": layer("Dense", {"kernel_initializer": "my_initializer"}),
    "constraint": layer("Dense", {"kernel_constraint": layer("Bound", module="evil", registered_name="p>Bound")}),
    "regularizer": layer("Dense", {"kernel_regularizer": layer("Reg", module="evil")}),
    "activation": layer("Activation", {"activation": function("get_file", "keras.utils")}),
    "activation's name": layer("Activation", {"activation": "deserialize"}),
    "unsafe helper": layer("Activation", {"activation": function("enable_unsafe_deserialization", "keras.config")}),
    "metric": layer("Dense", {"metric": function("steal", "os")}),
    "loss": layer("AddLoss", {"loss": layer("Loss", module="evil")}),
    "optimizer": layer("Dense", {"optimizer": layer("Adam", module="evil")}),
    "policy": layer("Dense", {"dtype": layer("Policy", module="evil")}),
    "module of the system": layer("Dense", module="os"),
    "look-alike module": layer("Dense", module="keras_evil.layers"),
    "Keras's own helpers": layer("load_model", module="keras.saving"),
    "wrong area": layer("Dense", module="keras.utils"),
    "registered name": layer("Dense", module="keras.layers", registered_name="evil>Dense"),
    "class name is a list": {"class_name": ["Lambda"], "config": {}},
    "type": {"class_name": "__typespec__", "spec_name": "x", "module": "evil", "registered_name": None, "config": []},
    "vocabulary in a file": layer("StringLookup", {"vocabulary": "/etc/passwd"}),
    "build_config": layer("Dense", build_config={"input_shape": MARSHALLED}),
    "argument of a node": layer("Add", inbound_nodes=[{"args": [MARSHALLED], "kwargs": {}}]),
}


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_code_is_refused_with_its_place(name: str, nested: bool) -> None:
    """Each kind of code is found in the model and in a model inside it, and the report names the layers around it."""
    config = model(layer("Dense"), model(CODE[name]) if nested else CODE[name])
    codes = list(find_code(config))
    assert codes
    assert not nested or all(code.layer.split("/")[0] == "net" for code in codes)


def weights(write: Callable[[h5py.File], object] = lambda file: None) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_group("layers/dense/vars")["0"] = np.ones((3, 2), np.float32)
        write(file)
    return stream.getvalue()


def archive(path: Path, config: Any, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        target.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        for name, data in ({"model.weights.h5": weights()} | members).items():
            target.writestr(name, data)
    return path


def h5(path: Path, config: Any, write: Callable[[h5py.File], object] = lambda file: None) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights/dense")["kernel:0"] = np.ones((3, 2), np.float32)
        file["model_weights"].attrs["weight_names"] = []
        write(file)
    return path


def copied(path: Path) -> tuple[str, bytes]:
    with open_keras_file(path, allow_code=False) as file:
        copy = file.write_copy(file.config)
        return file.format, copy.read_bytes()


@pytest.mark.parametrize("build", [archive, h5])
def test_the_error_says_where_and_how_to_go_on(tmp_path: Path, build: Callable[..., Path]) -> None:
    """The refusal has exit code 4 and names the layer's path, the function, the export without code and the flag."""
    path = build(tmp_path / "m.keras", model(layer("TimeDistributed", {"layer": call("io.write_file")})))
    with pytest.raises(
        ConversionError, match=r"'timedistributed/tfoplambda' \(TFOpLambda of tf\.io\.write_file\)"
    ) as e:
        copied(path)
    assert e.value.exit_code == 4
    assert "--allow-code" in e.value.hint and "model.export" in e.value.hint


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5", ".bin"])
def test_a_polyglot_is_what_its_content_says(tmp_path: Path, suffix: str) -> None:
    """A file that begins as HDF5 and ends as a zip, whatever its suffix, is scanned and loaded as one of them only."""
    path = h5(tmp_path / "first.h5", model(layer("Dense")))
    zipped = archive(tmp_path / "second.keras", model(layer("Lambda")))
    both = tmp_path / f"both{suffix}"
    both.write_bytes(path.read_bytes() + zipped.read_bytes())
    form, data = copied(both)
    assert form == "h5" and b"Lambda" not in data and b"PK\x03\x04" not in data
    user_block = tmp_path / f"block{suffix}"
    with h5py.File(tmp_path / "b.h5", "w", userblock_size=1 << 16) as file:
        file.attrs["model_config"] = json.dumps(model(layer("Lambda")))
    data = bytearray((tmp_path / "b.h5").read_bytes())
    harmless = archive(tmp_path / "h.keras", model(layer("Dense"))).read_bytes()
    data[: len(harmless)] = harmless
    user_block.write_bytes(data + harmless)
    form, copy = copied(user_block)
    assert form == "keras" and b"Lambda" not in copy


@pytest.mark.parametrize(
    "write",
    [
        lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/other.h5", "/secret")),
        lambda f: f.__setitem__("x", h5py.SoftLink("/layers")),
        lambda f: f.__setitem__("x", f["/"]),
        lambda f: f.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
        lambda f: f.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 10,)),
        lambda f: f.create_dataset("x", data=f["/"].ref, dtype=h5py.ref_dtype),
        lambda f: f.create_virtual_dataset("x", virtual()),
    ],
    ids=["external link", "soft link", "loop", "external storage", "claimed size", "reference", "virtual"],
)
@pytest.mark.parametrize("form", ["h5", "keras"])
def test_weights_do_not_reach_outside(tmp_path: Path, write: Callable[[h5py.File], object], form: str) -> None:
    """HDF5 links, external and virtual storage, references and sizes that are not in the file are refused."""
    config = model(layer("Dense"))
    if form == "h5":
        path = h5(tmp_path / "m.h5", config, write)
    else:
        path = archive(tmp_path / "m.keras", config, **{"model.weights.h5": weights(write)})
    with pytest.raises(ModelFileError, match=r"HDF5"):
        copied(path)


def virtual() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (4,))
    return layout


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_with_tricks(tmp_path: Path) -> None:
    """Repeated members and members outside the archive are refused; unknown members are not in the copy."""
    config = model(layer("Dense"))
    twice = archive(tmp_path / "twice.keras", config)
    with zipfile.ZipFile(twice, "a") as target:
        target.writestr("config.json", json.dumps(model(layer("Lambda"))))
    for path in (twice, archive(tmp_path / "up.keras", config, **{"assets/../../x": b""})):
        with pytest.raises(ModelFileError, match="not an archive that Keras writes"):
            copied(path)
    _, data = copied(archive(tmp_path / "m.keras", config, **{"model.weights.npz": b"x", "assets/v.txt": b"a\nb"}))
    assert sorted(zipfile.ZipFile(io.BytesIO(data)).namelist()) == [
        "assets/v.txt", "config.json", "metadata.json", "model.weights.h5",
    ]  # fmt: skip


def test_repeated_keys_and_deep_nesting(tmp_path: Path) -> None:
    """The copy has the key that was scanned; nesting beyond Python's recursion is one error."""
    harmless = json.dumps(model(layer("Dense")))
    path = archive(tmp_path / "m.keras", '{"config": {"layers": [{"class_name": "Lambda"}]}, ' + harmless[1:])
    assert b"Lambda" not in copied(path)[1]
    with pytest.raises(ModelFileError, match="cannot be read"):
        copied(archive(tmp_path / "deep.keras", "[" * 100_000))


def test_training_settings_are_not_loaded(tmp_path: Path) -> None:
    """A custom loss or metric does not need the flag, because the copy has no training settings, nor nested ones."""
    inner = model(layer("Dense")) | {"compile_config": {"loss": function("steal", "evil")}}
    config = model(inner) | {"compile_config": {"metrics": [layer("M", module="evil")], "loss": "mse"}}
    path = archive(tmp_path / "m.keras", config)
    with open_keras_file(path, allow_code=False) as file:
        assert file.compile_config["loss"] == "mse"
        assert b"evil" not in file.write_copy(file.config).read_bytes()
    path = h5(tmp_path / "m.h5", model(), lambda f: f.attrs.__setitem__("training_config", '{"loss": "evil"}'))
    assert b"evil" not in copied(path)[1]


def test_a_swapped_file_is_not_read_again(tmp_path: Path) -> None:
    """The copy comes from the bytes that were scanned, also when the file is exchanged in between."""
    path = archive(tmp_path / "m.keras", model(layer("Dense")))
    with open_keras_file(path, allow_code=False) as file:
        archive(path, model(layer("Lambda")))
        assert b"Lambda" not in file.write_copy(file.config).read_bytes()


def test_pipes_do_not_hang(tmp_path: Path) -> None:
    """A named pipe is refused at once."""
    os.mkfifo(tmp_path / "m.h5")
    with pytest.raises(ModelFileError, match="not a regular file"):
        copied(tmp_path / "m.h5")
