"""A size that a file claims is compared with what it holds before memory is reserved; large samples are streamed."""

import os
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import Net, classifier
from PIL import Image

from edgepack.errors import ModelFileError, SamplesError, UnfitModelError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.quantize.calibrate import calibrate
from edgepack.runtime.runner import Runner
from edgepack.samples import InputSpec, load_samples

VECTOR = [InputSpec("x", (1, 4), np.dtype(np.float32))]
IMAGE = [InputSpec("x", (1, 8, 8, 3), np.dtype(np.float32))]


def _npy_header(shape: object, descr: str = "<f4", *, fortran: bool = False) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _refused(path: Path) -> str:
    """Return the message of the one error, raised without a large allocation."""
    tracemalloc.start()
    try:
        with pytest.raises(SamplesError) as caught:
            samples = load_samples(str(path), VECTOR if path.suffix in {".npy", ".npz"} else IMAGE)
            samples.sample(0)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    return caught.value.message


@pytest.mark.parametrize(
    "shape",
    ["(158000000000, 4)", "(2**62, 4)", "(4611686018427387904, 4)", "(99999999999999999999, 4)", "(-1, 4)", "(2, -4)",
     "(True, 4)", "(1.5, 4)", "('a',)", "(0, 99999999999999, 4)", "()", "(3,)"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy_that_claims_more_than_it_holds(tmp_path: Path, shape: str, suffix: str, fortran: bool) -> None:
    """A header that claims terabytes, negative or odd sizes is one error, alone and in an archive."""
    content = _npy_header(shape, fortran=fortran) + bytes(32)
    path = tmp_path / f"s{suffix}"
    if suffix == ".npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content)
    _refused(path)


@pytest.mark.parametrize("descr", ["|O", "<V8", "<U1000000000", "<c8", "|V2147483647"])
def test_npy_of_odd_types(tmp_path: Path, descr: str) -> None:
    """Types without numbers, of any size, are one error."""
    (tmp_path / "s.npy").write_bytes(_npy_header("(4, 4)", descr) + bytes(64))
    _refused(tmp_path / "s.npy")


def test_npz_member_with_a_false_size(tmp_path: Path) -> None:
    """A directory of an archive that claims a size which its compressed bytes cannot have is one error."""
    np.savez_compressed(tmp_path / "s.npz", x=np.zeros((9, 4), np.float32))
    data = bytearray((tmp_path / "s.npz").read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFF0000)
    (tmp_path / "s.npz").write_bytes(data)
    _refused(tmp_path / "s.npz")


def test_npz_that_inflates_is_streamed(tmp_path: Path) -> None:
    """An archive of 200 kB with 200 MB of zeros is read sample by sample."""
    count = 12_500_000
    with (
        zipfile.ZipFile(tmp_path / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(_npy_header(f"({count}, 4)"))
        for _ in range(20):
            member.write(bytes(count * 16 // 20))
    tracemalloc.start()
    samples = load_samples(str(tmp_path / "s.npz"), VECTOR).limited(5)
    assert len(samples) == 5
    assert [float(samples.sample(i)["x"].max()) for i in range(5)] == [0.0] * 5
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    assert len(pickle.dumps(samples)) < 10_000


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_streamed_values_are_the_arrays(tmp_path: Path, order: str, save: Callable[..., None]) -> None:
    """Samples of every layout have the values of the array, in any order and after pickling."""
    values = np.asarray(np.random.default_rng(1).normal(size=(50, 4)), np.float64, order=order)  # type: ignore[call-overload]
    save(tmp_path / "s.npz", x=values, y=np.arange(50))
    np.save(tmp_path / "s.npy", values)
    for name in ("s.npz", "s.npy"):
        samples = pickle.loads(pickle.dumps(load_samples(str(tmp_path / name), VECTOR).take([7, 3, 49, 3])))
        for position, row in enumerate([7, 3, 49, 3]):
            np.testing.assert_array_equal(samples.sample(position)["x"], values[row : row + 1].astype(np.float32))


def test_quantized_values_are_the_same_streamed(tmp_path: Path) -> None:
    """Quantized samples become real values one by one, as they did in memory."""
    values = np.random.default_rng(1).integers(-128, 127, (20, 4), np.int8)
    np.save(tmp_path / "s.npy", values)
    spec = InputSpec("x", (1, 4), np.dtype(np.int8), scale=0.037, zero_point=-3)
    samples = load_samples(str(tmp_path / "s.npy"), [spec])
    expected = ((values.astype(np.float32) + 3) * np.float32(0.037)).astype(np.float32)
    for position in range(20):
        np.testing.assert_array_equal(samples.sample(position)["x"][0], expected[position])


@pytest.mark.parametrize("name", ["s.npy", "s.npz"])
def test_a_file_that_changes_is_an_error(tmp_path: Path, name: str) -> None:
    """The file that is read is the one that was hashed, also where it became shorter."""
    save = np.save if name == "s.npy" else np.savez
    save(tmp_path / name, np.zeros((9, 4), np.float32))
    samples = load_samples(str(tmp_path / name), VECTOR)
    samples.sample(0)
    with (tmp_path / name).open("r+b") as stream:
        stream.truncate(150)
    for changed in (samples, samples.take([1])):
        with pytest.raises(SamplesError):
            changed.sample(0)


def test_an_image_that_changes_is_an_error(tmp_path: Path) -> None:
    """An image is compared with its digest when it is decoded."""
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    samples = load_samples(str(tmp_path), IMAGE)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    with pytest.raises(SamplesError, match="changed"):
        samples.sample(0)


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [_png(10_000, 10_000), _png(2**31 - 1, 2**31 - 1), _png(8_947_849, 10), b"P6 40000 40000 255\n", b"P6 -1 4 255\n",
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"", b"GIF89a\xff\xff\xff\xff"],
    ids=["square", "largest", "wide", "ppm", "negative", "eps", "empty", "gif"],
)  # fmt: skip
def test_images_that_claim_too_much(tmp_path: Path, content: bytes) -> None:
    """Dimensions are checked before decoding, and only image formats that Pillow decodes itself are opened."""
    (tmp_path / "a.png").write_bytes(content)
    assert "a.png" in _refused(tmp_path)


def test_pipes_do_not_block(tmp_path: Path) -> None:
    """A pipe under the name of a sample file is an error, not a wait."""
    os.mkfifo(tmp_path / "s.npy")
    assert "regular file" in _refused(tmp_path / "s.npy")


def test_endless_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that never stops yielding is an error once its samples exceed the limit."""
    monkeypatch.setattr("edgepack.samples.load.MOST_FUNCTION_BYTES", 1 << 20)
    (tmp_path / "endless_samples.py").write_text(
        "import numpy as np\ndef endless():\n    while True: yield np.zeros(4, 'f4')\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SamplesError, match="more than"):
        load_samples("endless_samples:endless", VECTOR)


def _claiming(shape: tuple[int, ...]) -> bytes:
    net = Net()
    x = net.tensor("x", shape)
    y = net.tensor("y", shape)
    net.op("RELU", [x], [y])
    return net.build([x], [y])


@pytest.mark.parametrize(
    "shape", [(1 << 28, 4), (1 << 30,), (1, 1 << 15, 1 << 15, 8), (2**31 - 1, 2**31 - 1, 2**31 - 1)]
)
def test_activations_that_claim_gigabytes(shape: tuple[int, ...]) -> None:
    """Neither the runtime nor calibration reserves what a small file claims."""
    tflite = _claiming(shape)
    for run in (Runner, lambda data: calibrate(data, iter(()))):
        with pytest.raises(UnfitModelError, match="claims"):
            run(tflite)


def test_empty_weights_of_a_large_shape() -> None:
    """Weights without values whose first dimension would become the output's are a corrupt file."""
    model = unpack(classifier())
    tensor = next(t for t in model.subgraphs[0].tensors if t.buffer and len(t.shape) == 2)
    tensor.shape, tensor.buffer = np.array([268435466, 0], np.int32), 0
    with pytest.raises(ModelFileError, match="is empty"):
        read_model(pack(model))


@pytest.mark.parametrize(
    ("offset", "size"), [(1 << 40, 4), (8, 1 << 40), (2**63, 2**63), (2**64 - 1, 1), (100, 2**64 - 1)]
)
def test_buffers_behind_the_end(offset: int, size: int) -> None:
    """A buffer that ends behind the file is one error for the reader and for the editor."""
    import flatbuffers

    model = unpack(classifier())
    model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, offset, size
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    for read in (read_model, unpack):
        with pytest.raises(ModelFileError, match="ends at byte"):
            read(bytes(builder.Output()))
    assert schema() is not None


@pytest.mark.slow
def test_two_gigabytes_of_samples_in_bounded_memory(tmp_path: Path) -> None:
    """Calibration on a sparse .npy of 2 GB stays within 1.5 GB of memory."""
    net_input, count = (1, 64, 64, 3), 2**31 // (64 * 64 * 3 * 4)
    (tmp_path / "m.tflite").write_bytes(_claiming(net_input))
    header = _npy_header(f"({count}, 64, 64, 3)")
    with (tmp_path / "s.npy").open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + count * 64 * 64 * 3 * 4)
    program = (
        "import sys; from edgepack.samples import load_samples; from edgepack.samples.specs import input_specs\n"
        "from edgepack.quantize.calibrate import calibrate\n"
        "tflite = open('m.tflite', 'rb').read(); s = load_samples('s.npy', input_specs(tflite)).limited(500)\n"
        "assert calibrate(tflite, (s.sample(i) for i in range(len(s)))).samples == len(s)\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    limit = 3 << 29
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) * 1024 < limit
