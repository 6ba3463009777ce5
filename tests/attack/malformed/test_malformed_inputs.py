"""Samples, labels, images and model.toml of any content: one UsageError with the file, or values that can be used."""

import io
import random
import tomllib
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import tomli_w
from builders import classifier
from hypothesis import example, given
from malformed_documents import SETTINGS, mutated, plain_values
from PIL import Image

from edgepack.errors import EdgepackError, UsageError
from edgepack.graph import read_model
from edgepack.graph.metadata import write_metadata
from edgepack.pipeline.model_info import describe_model, read_labels, read_model_toml
from edgepack.samples import InputSpec, Preprocess, SampleSet, lint, load_samples

VECTOR = [InputSpec("x", (1, 4), np.dtype(np.float32))]
IMAGE = [InputSpec("x", (1, 8, 8, 3), np.dtype(np.float32))]
#: Most bytes that reading small files may reserve.
MEMORY = 64 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def used(source: Path, inputs: list[InputSpec]) -> SampleSet | None:
    """Read samples as a build does; return None for a UsageError that names the file."""
    tracemalloc.start()
    try:
        samples = load_samples(str(source), inputs)
        for index in (0, len(samples) - 1):
            for spec, array in zip(inputs, samples.sample(index).values(), strict=True):
                assert array.dtype == spec.sample_dtype and array.shape == spec.shape
        lint(samples.limited(5))
        return samples
    except UsageError as error:
        assert source.name in error.message or any(path.name in error.message for path in source.glob("*"))
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY


HEADERS = st.fixed_dictionaries(
    {
        "shape": st.one_of(
            st.lists(st.integers(-2, 9), max_size=5).map(tuple),
            st.lists(st.sampled_from((0, 1, 4, 1 << 31, 1 << 62, 10**30, -1, True, 1.5, "a", None)), max_size=40).map(
                tuple
            ),
            st.sampled_from(((5, 4), 5, [5, 4], "(5, 4)", None, {})),
        ),
        "fortran_order": st.sampled_from((False, True, 0, "True", None)),
        "descr": st.sampled_from(
            ("<f4", "<f4", ">f8", "|b1", "<i8", "<u2", "<f2", "<c8", "|O", "<U9", "|S3", "|V0", "<M8[ns]", "<f99", "",
             3, None, [("a", "<f4")], [("a", "|O")], [("a", "<f4", (1 << 30,))])
        ),
    }
)  # fmt: skip


@st.composite
def npy(draw: st.DrawFn) -> bytes:
    """Draw an .npy: a header of any content with any version, a few values, and damaged bytes."""
    header = draw(HEADERS)
    if draw(st.integers(0, 9)) == 0:
        header[draw(st.sampled_from(("shape", "descr", "other")))] = header.pop("fortran_order")
    text = repr(header).encode()
    text = draw(st.sampled_from((text, text, text, text * 2, text[:-1], b"", b"(" * 4000, text.replace(b"(", b"(9**"))))
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    major = draw(st.sampled_from((1, 1, 1, 2, 3, 255)))
    length = len(text) + draw(st.sampled_from((0, 0, 0, 0, 1, -1, 60_000)))
    size = (length % 65536).to_bytes(2, "little") if major == 1 else (length % 2**32).to_bytes(4, "little")
    values = bytes(draw(st.sampled_from((80, 80, 80, 0, 7, 4096))))
    return damaged(draw, b"\x93NUMPY" + bytes((major, 0)) + size + text + values, 0.8)


def damaged(draw: st.DrawFn, data: bytes, sound: float) -> bytes:
    """Return the bytes, or with the chance `1 - sound` bytes that differ in one to four places or end early."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    if not data or chance.random() < sound:
        return data
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    return bytes(changed[: chance.choice((len(changed), len(changed), chance.randrange(len(changed))))])


@SETTINGS
@given(npy())
def test_npy_of_any_content(folder: Path, data: bytes) -> None:
    """Headers of every form, with every dtype and shape."""
    (folder / "s.npy").write_bytes(data)
    used(folder / "s.npy", VECTOR)


@SETTINGS
@given(st.data())
def test_npz_of_any_content(folder: Path, data: st.DataObject) -> None:
    """Members of any name and content, compressed or not, in a damaged archive."""
    stream = io.BytesIO()
    names = st.sampled_from(("x", "x", "y", "labels", "../x", "", "\u202e", "x" * 300))
    compression = st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile's for a name that occurs twice
        for name in data.draw(st.lists(names, max_size=3)):
            sound = io.BytesIO()
            np.save(sound, np.zeros((5, 4) if name == "x" else 5, np.float32))
            content = data.draw(st.one_of(st.just(sound.getvalue()), npy()))
            archive.writestr(f"{name}.npy", content, data.draw(compression))
    (folder / "s.npz").write_bytes(damaged(data.draw, stream.getvalue(), 0.5))
    used(folder / "s.npz", VECTOR)


def images() -> list[tuple[str, bytes]]:
    """Return a small image of each format, in several modes."""
    pixels = np.random.default_rng(1).integers(0, 255, (9, 7, 3), np.uint8)
    files = []
    for suffix, kind, mode in (
        ("png", "PNG", "RGB"), ("png", "PNG", "P"), ("jpg", "JPEG", "RGB"), ("jpg", "JPEG", "CMYK"),
        ("bmp", "BMP", "RGB"), ("gif", "GIF", "P"), ("webp", "WEBP", "RGB"), ("ppm", "PPM", "RGB"),
        ("tif", "TIFF", "RGB"), ("tif", "TIFF", "F"),
    ):  # fmt: skip
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, kind)
        files.append((suffix, stream.getvalue()))
    return files


IMAGES = images()


@SETTINGS
@given(st.data())
def test_images_of_any_content(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Damaged images of every format, also under the suffix of another."""
    folder = tmp_path_factory.mktemp("images")
    suffix, content = data.draw(st.sampled_from(IMAGES))
    other, _ = data.draw(st.sampled_from(IMAGES))
    name = f"a.{data.draw(st.sampled_from((suffix, other)))}"
    (folder / name).write_bytes(damaged(data.draw, content, 0.2))
    used(folder, IMAGE)


@SETTINGS
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
@example(b"")
@example(b"\xef\xbb\xbf\n\n")
@example(b"a\0b\r\nc\x0cd\n")
@example("\u2028\u0085".encode())
def test_labels_of_any_content(folder: Path, data: bytes) -> None:
    """Bytes that are not UTF-8, empty files, and characters that end a line in Python only."""
    (folder / "labels.txt").write_bytes(data)
    try:
        labels = read_labels(folder / "labels.txt")
    except UsageError as error:
        assert "--labels" in error.message and "labels.txt" in error.message
    else:
        assert labels and labels[-1] and all(label == label.strip() for label in labels)


MODEL = read_model(classifier())
TOML: dict[str, Any] = {
    "name": "n", "description": "d", "version": "1", "author": "a", "license": "l",
    "inputs": [{"tensor": "image", "name": "i", "description": "d", "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}],
    "outputs": [{"tensor": "classes", "name": "o", "description": "d", "labels": list("abcdefghij")}],
}  # fmt: skip


def described(folder: Path, document: dict[str, Any]) -> str:
    """Write a model.toml and use it as a build does; return the message of its error, empty without one."""
    (folder / "model.toml").write_bytes(tomli_w.dumps(document).encode())
    tomllib.loads((folder / "model.toml").read_text())
    try:
        toml = read_model_toml(folder / "model.toml", MODEL)
        info = describe_model(MODEL, name="m", own=None, toml=toml)
    except UsageError as error:
        assert "model.toml" in error.message or "image" in error.message or "classes" in error.message
        return error.message
    # What passes can be written into the file that ships.
    write_metadata(classifier(), info)
    return ""


def test_the_toml_is_sound(folder: Path) -> None:
    """The document that the tests mutate has no fault."""
    assert described(folder, TOML) == ""


@SETTINGS
@given(mutated(TOML, plain_values(float("nan"), float("inf"), 10**400, 1e-60, 1e300, "a\0b", "labels.txt")))
def test_model_toml_of_any_content(folder: Path, document: Any) -> None:
    """One to three changes: a UsageError with its place, or metadata that can be written."""
    if isinstance(document, dict):
        described(folder, document)


@pytest.mark.parametrize("key", ["mean", "std", "tensor", "name", "description"])
@pytest.mark.parametrize("value", [True, {}, [[]], [""], float("nan"), 10**400])
def test_every_key_of_an_input_has_a_place(folder: Path, key: str, value: Any) -> None:
    """A wrong value of a table names the table with its number and the key."""
    message = described(folder, {**TOML, "inputs": [{**TOML["inputs"][0], key: value}]})
    assert f"inputs]][0].{key}" in message or f"inputs[0].{key}" in message
    assert "expected" in message


@SETTINGS
@given(st.text(alphabet="0123456789.,-+eEinfa _\u0661\u00b2", max_size=24))
def test_preprocess_of_any_content(text: str) -> None:
    """--preprocess gives finite values for every pixel, or a UsageError."""
    try:
        rule = Preprocess.parse(text)
    except EdgepackError as error:
        assert "--preprocess: expected" in error.message
        return
    pixels = np.array([[0.0], [255.0]], np.float32)
    assert np.isfinite((pixels - np.float32(rule.mean)) / np.float32(rule.std)).all()
