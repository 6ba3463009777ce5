"""Standard metadata: TensorFlow's reader accepts what is written, real files are read, broken ones are refused."""

import ctypes
import io
import json
import platform
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import ModelFileError
from edgepack.graph import read_model
from edgepack.graph.edit import set_min_runtime_version
from edgepack.graph.metadata import (
    ModelInfo,
    TensorMetadata,
    associated_files,
    copy_metadata,
    read_metadata,
    write_metadata,
)
from edgepack.runtime import Runner

DIGITS = Path(__file__).resolve().parents[1] / "data" / "digits_float.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
SPLIT = "coral/split_concat.tflite"
STOCK = "tflite-support==0.4.4"
INFO = ModelInfo(
    name="Digits",
    description='Says "which" digit; größe 日本',
    version="1.2",
    author="A. Author",
    license="Apache-2.0",
    inputs=(TensorMetadata("picture", "8 by 8", (0.5,), (0.25,), "grayscale", (), (0.0,), (1.0,)),),
    outputs=(TensorMetadata("digit", "how sure", labels=tuple(f"Ziffer {n}, é" for n in range(10))),),
)


@pytest.fixture(scope="module")
def digits() -> bytes:
    return DIGITS.read_bytes()


def test_what_is_written_is_read_back(digits: bytes) -> None:
    """All metadata of model and tensors is read back, in any script; the same input gives the same bytes."""
    assert read_metadata(digits) is None
    written = write_metadata(digits, INFO)
    assert read_metadata(written) == INFO
    assert write_metadata(digits, INFO) == written
    assert write_metadata(written, INFO) == written
    assert read_metadata(write_metadata(digits, ModelInfo())) == ModelInfo()


def test_the_model_stays_what_it_was(digits: bytes) -> None:
    """Metadata changes no output, no signature, no name and no other metadata."""
    written = write_metadata(digits, INFO)
    before, after = read_model(digits), read_model(written)
    assert [(s.key, s.inputs, s.outputs) for s in after.signatures] == [
        (s.key, s.inputs, s.outputs) for s in before.signatures
    ]
    assert (after.input_names(), after.output_names()) == (before.input_names(), before.output_names())
    assert {k: v for k, v in after.metadata.items() if k != "TFLITE_METADATA"} == before.metadata
    values = np.random.default_rng(0).random(Runner(digits).inputs[0].shape, np.float32)
    assert np.array_equal(Runner(digits).run([values])[0], Runner(written).run([values])[0])


def test_new_metadata_replaces_old(digits: bytes) -> None:
    """Writing again removes the old metadata with its label files, and the file does not grow."""
    plain = replace(INFO, outputs=())
    once = write_metadata(digits, plain)
    assert write_metadata(write_metadata(digits, INFO), plain) == once
    assert associated_files(once) == {}
    assert list(associated_files(write_metadata(digits, INFO))) == ["output_0_labels.txt"]


def test_line_breaks_do_not_split_labels(digits: bytes) -> None:
    """A label with a line break stays one label."""
    labels = ("two\nlines", "car\r\nriage", *map(str, range(8)))
    written = write_metadata(digits, ModelInfo(outputs=(TensorMetadata(labels=labels),)))
    metadata = read_metadata(written)
    assert metadata is not None and metadata.outputs[0].labels == ("two lines", "car riage", *map(str, range(8)))


def test_a_real_files_metadata_is_read(shared_models: Path) -> None:
    """The metadata of the published MobileNet gives mean, std, color, range and its 1,001 labels."""
    metadata = read_metadata((shared_models / MOBILENET).read_bytes())
    assert metadata is not None
    assert metadata.name == "ImageClassifier"
    (picture,) = metadata.inputs
    assert (picture.mean, picture.std, picture.color) == ((127.5,), (127.5,), "rgb")
    assert (picture.minimum, picture.maximum) == ((0.0,), (255.0,))
    assert metadata.outputs[0].labels[:3] == ("background", "tench, Tinca tinca", "goldfish, Carassius auratus")
    assert len(metadata.outputs[0].labels) == 1001


def test_copies_are_exact(shared_models: Path) -> None:
    """A rewritten file gets the metadata and archive of its source, byte for byte."""
    source = (shared_models / MOBILENET).read_bytes()
    edited = set_min_runtime_version(source, "1.14.0")
    assert associated_files(edited) == {}
    copied = copy_metadata(source, edited)
    assert associated_files(copied) == associated_files(source)
    assert read_model(copied).metadata["TFLITE_METADATA"] == read_model(source).metadata["TFLITE_METADATA"]
    assert read_metadata(copied) == read_metadata(source)
    split = (shared_models / SPLIT).read_bytes()
    assert copy_metadata(split, source) == source


@pytest.mark.slow
def test_the_stock_reader_reads_it(digits: bytes, tmp_path: Path) -> None:
    """TensorFlow's metadata library shows the same names, numbers and labels, and can write to the file."""
    if sys.version_info[:2] != (3, 11) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the stock metadata library was last published for Python 3.11 on x86-64 Linux")
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        pytest.skip("the stock metadata library needs libusb-1.0.so.0: install the Debian package libusb-1.0-0")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(tmp_path)]
    process = subprocess.run([*command, STOCK], capture_output=True, text=True, timeout=300)
    if process.returncode != 0:
        pytest.skip(f"{STOCK} cannot be downloaded from the package index of this machine")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        members = [n for n in archive.namelist() if n.startswith("tensorflow_lite_support/metadata/")]
        archive.extractall(tmp_path / "stock", [*members, "tensorflow_lite_support/__init__.py"])
    # An empty __init__.py, because the original imports the task libraries.
    (tmp_path / "stock" / "tensorflow_lite_support" / "__init__.py").write_text("")
    (tmp_path / "model.tflite").write_bytes(write_metadata(digits, INFO))
    code = """
import json, sys
sys.modules["tensorflow"] = None
from tensorflow_lite_support.metadata.python.metadata import MetadataDisplayer, MetadataPopulator
shown = MetadataDisplayer.with_model_file(sys.argv[1])
files = {n: shown.get_associated_file_buffer(n).decode() for n in shown.get_packed_associated_file_list()}
MetadataPopulator.with_model_file(sys.argv[1])
print(json.dumps({"metadata": json.loads(shown.get_metadata_json()), "files": files}))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.tflite")],
        capture_output=True,
        text=True,
        cwd=tmp_path / "stock",
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    output = json.loads(process.stdout)
    metadata = output["metadata"]
    (graph,) = metadata["subgraph_metadata"]
    (picture,), (digit,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert [metadata[key] for key in ("name", "description", "version", "author", "license")] == [
        INFO.name, INFO.description, INFO.version, INFO.author, INFO.license,
    ]  # fmt: skip
    assert picture["process_units"] == [
        {"options_type": "NormalizationOptions", "options": {"mean": [0.5], "std": [0.25]}}
    ]
    assert picture["content"]["content_properties"] == {"color_space": "GRAYSCALE"}
    assert picture["stats"] == {"max": [1.0], "min": [0.0]}
    assert digit["associated_files"] == [{"name": "output_0_labels.txt", "type": "TENSOR_AXIS_LABELS"}]
    assert output["files"] == {"output_0_labels.txt": "".join(f"{label}\n" for label in INFO.outputs[0].labels)}


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (ModelInfo(inputs=(TensorMetadata(), TensorMetadata())), "expected at most 1 inputs, got 2"),
        (ModelInfo(inputs=(TensorMetadata("x", mean=(0.0,)),)), "expected as many std as mean"),
        (ModelInfo(inputs=(TensorMetadata("x", mean=(0.0,), std=(0.0,)),)), "no std of 0"),
        (ModelInfo(inputs=(TensorMetadata("x", mean=(0.0,), std=(float("nan"),)),)), "finite numbers"),
        (ModelInfo(inputs=(TensorMetadata("x", mean=(0.0,) * 3, std=(1.0,) * 3),)), "values of mean, got 3"),
        (ModelInfo(inputs=(TensorMetadata("x", color="cmyk"),)), "expected rgb or grayscale, got 'cmyk'"),
        (ModelInfo(outputs=(TensorMetadata("y", labels=("one",)),)), "expected 10 labels, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(digits: bytes, info: ModelInfo, message: str) -> None:
    """Metadata that contradicts the model is an error that names the tensor, the expected and the actual value."""
    with pytest.raises(ModelFileError, match=message):
        write_metadata(digits, info)


def test_broken_metadata_is_one_error(digits: bytes) -> None:
    """Reading damaged metadata gives a value or a ModelFileError, in bounded time."""
    written = write_metadata(digits, INFO)
    raw = read_model(written).metadata["TFLITE_METADATA"]
    start = written.index(raw)
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(600):
        broken = bytearray(written)
        for position in generator.integers(0, len(raw), generator.integers(1, 6)):
            broken[start + position] = generator.choice([0, 1, 4, 127, 128, 254, 255])
        try:
            read_metadata(bytes(broken))
        except ModelFileError:
            refused += 1
    assert 0 < refused < 600


def test_broken_archives_are_one_error(digits: bytes) -> None:
    """A damaged archive and one that claims to be huge are refused."""
    written = write_metadata(digits, INFO)
    position = written.rindex(b"PK\x03\x04")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_metadata(written[:position] + b"XXXX" + written[position + 4 :])
    stream = io.BytesIO(digits)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(1 << 25))
    assert len(stream.getvalue()) < len(digits) + (1 << 16)
    with pytest.raises(ModelFileError, match="more than 16 MiB"):
        associated_files(stream.getvalue())
