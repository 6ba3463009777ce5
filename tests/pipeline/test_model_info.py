"""Descriptions of a model, from options, a model.toml or its own metadata, reach its bundle and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import Net
from PIL import Image

from edgepack.bundle.verify import verify
from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.graph.metadata import ModelInfo, TensorMetadata, associated_files, read_metadata, write_metadata
from edgepack.pipeline.build import build
from edgepack.pipeline.model_info import describe_model, read_model_toml
from edgepack.pipeline.options import BuildOptions

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "digits"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TOML = """
name = "Digits"
description = "Which digit is on a picture"
version = "1.0"
author = "A. Author"
license = "Apache-2.0"
[[inputs]]
tensor = "image"
name = "picture"
description = "Grey pixels"
mean = 0
std = 255.0
[[outputs]]
description = "How sure the model is"
labels_file = "names.txt"
"""

pytestmark = pytest.mark.usefixtures("warm_cache")


def built(model: Path, out: Path, **more: object) -> tuple[ModelInfo | None, dict[str, object], bytes]:
    """Build for the CPU; return the shipped file's metadata, the manifest and the file."""
    (entry,) = build(model, ["cpu"], BuildOptions(out=out, name="m", force=True, **more)).results  # type: ignore[arg-type]
    assert entry.error is None, entry.error
    assert entry.bundle is not None
    assert verify(entry.bundle).problems == ()
    shipped = (entry.bundle / "model" / "m.tflite").read_bytes()
    return read_metadata(shipped), json.loads((entry.bundle / "manifest.json").read_text()), shipped


@pytest.mark.slow
def test_flags_are_written(tmp_path: Path) -> None:
    """--labels and --preprocess stand in the file as the stock tools read them; every scheme and signature stays."""
    info, manifest, shipped = built(
        FLOAT,
        tmp_path,
        samples=str(EXAMPLES / "samples.npz"),
        labels=EXAMPLES / "labels.txt",
        preprocess="0,255",
    )
    assert info is not None
    assert info.name == "m"
    assert info.inputs == (TensorMetadata("image", mean=(0.0,), std=(255.0,), color="grayscale"),)
    assert info.outputs[0].labels == tuple((EXAMPLES / "labels.txt").read_text().split("\n")[:10])
    assert list(associated_files(shipped)) == ["output_0_labels.txt"]
    assert manifest["inputs"][0]["preprocessing"] == {"mean": 0.0, "std": 255.0}  # type: ignore[index]
    assert [s.key for s in read_model(shipped).signatures] == ["serving_default"]


def test_model_toml_is_written(tmp_path: Path) -> None:
    """A model.toml holds names, texts, pixel normalization and labels; the bundle's loader gets them too."""
    (tmp_path / "model.toml").write_text(TOML)
    (tmp_path / "names.txt").write_text("\n".join(DIGITS))
    info, manifest, _ = built(FLOAT, tmp_path, metadata=tmp_path / "model.toml")
    assert info == ModelInfo(
        "Digits",
        "Which digit is on a picture",
        "1.0",
        "A. Author",
        "Apache-2.0",
        (TensorMetadata("picture", "Grey pixels", (0.0,), (255.0,), "grayscale"),),
        (TensorMetadata("digit", "How sure the model is", labels=DIGITS),),
    )
    assert manifest["outputs"][0]["labels"] == list(DIGITS)  # type: ignore[index]


@pytest.mark.slow
def test_flags_come_before_the_toml_and_the_toml_before_the_file(tmp_path: Path) -> None:
    """The source closer to the command line has precedence, field by field."""
    own = ModelInfo("own", "own words", outputs=(TensorMetadata("scores", labels=tuple("abcdefghij")),))
    (tmp_path / "own.tflite").write_bytes(write_metadata(FLOAT.read_bytes(), own))
    (tmp_path / "model.toml").write_text('name = "toml"\n[[outputs]]\nlabels = ' + json.dumps(list("klmnopqrst")))
    info, _, _ = built(tmp_path / "own.tflite", tmp_path)
    assert info == own
    info, _, _ = built(tmp_path / "own.tflite", tmp_path, metadata=tmp_path / "model.toml")
    assert info is not None
    assert (info.name, info.description) == ("toml", "own words")
    assert (info.outputs[0].name, info.outputs[0].labels) == ("scores", tuple("klmnopqrst"))
    info, _, _ = built(
        tmp_path / "own.tflite", tmp_path, metadata=tmp_path / "model.toml", labels=EXAMPLES / "labels.txt"
    )
    assert info is not None
    assert info.outputs[0].labels[0] not in {"a", "k"}


def test_a_published_files_own_metadata_is_enough(tmp_path: Path, shared_models: Path) -> None:
    """The published MobileNet brings labels and normalization for its loader, and ships unchanged."""
    info, manifest, shipped = built(shared_models / MOBILENET, tmp_path)
    assert shipped == (shared_models / MOBILENET).read_bytes()
    assert info is not None
    assert manifest["inputs"][0]["preprocessing"] == {"mean": 127.5, "std": 127.5}  # type: ignore[index]
    assert manifest["outputs"][0]["labels"][:2] == ["background", "tench, Tinca tinca"]  # type: ignore[index]


@pytest.mark.slow
def test_pixels_follow_the_files_own_rule(tmp_path: Path) -> None:
    """A folder of pictures is read by the normalisation in the model's metadata, not by a guess."""
    info = ModelInfo(inputs=(TensorMetadata(mean=(10.0,), std=(2.0,)),))
    (tmp_path / "m.tflite").write_bytes(write_metadata(FLOAT.read_bytes(), info))
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "pictures" / f"{number}.png")
    _, manifest, _ = built(tmp_path / "m.tflite", tmp_path, samples=str(tmp_path / "pictures"))
    assert manifest["inputs"][0]["preprocessing"] == {"mean": 10.0, "std": 2.0}  # type: ignore[index]
    assert not any("0..1" in note for note in manifest["notes"])  # type: ignore[attr-defined]


def test_nothing_said_leaves_the_file_alone(tmp_path: Path) -> None:
    """Without labels, pixels or a model.toml the file gets no metadata."""
    info, _, _ = built(FLOAT, tmp_path)
    assert info is None


def test_labels_that_mean_something_else_stay_in_the_file_only(tmp_path: Path) -> None:
    """A file whose label list is not one per place of the output (a detector's) builds, and keeps its metadata."""
    source = write_metadata(FLOAT.read_bytes(), ModelInfo("own", outputs=(TensorMetadata(labels=DIGITS),)))
    broken = source.replace(b"seven\n", b"se\nen\n")
    (tmp_path / "m.tflite").write_bytes(broken)
    _, manifest, _ = built(tmp_path / "m.tflite", tmp_path)
    assert manifest["outputs"][0]["labels"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 1", "name: expected a string"),
        ("nam = 'x'", "nam: unknown key, expected name, description"),
        ("[[inputs]]\nmean = 1", "[[inputs]][0]: expected as many std as mean"),
        ("[[inputs]]\nmean = 1\nstd = 0", "[[inputs]][0]: expected finite numbers and no std of 0"),
        ("[[inputs]]\nmean = [true]\nstd = [1]", "[[inputs]][0].mean: expected a number"),
        ("[[inputs]]\ntensor = 'nobody'", "[[inputs]][0].tensor: expected one of image, got 'nobody'"),
        ("[[outputs]]\n[[outputs]]", "the model has 1"),
        ("[[outputs]]\nlabels = [1]", "[[outputs]][0].labels: expected a list of strings"),
        ("[[outputs]]\nlabels = ['a']\nlabels_file = 'x'", "not both"),
        ("[[outputs]]\nlabels_file = 'nowhere'", "[[outputs]][0].labels_file: cannot read"),
        ("[[outputs]]\nlabels_file = 'a\\u0000b'", "[[outputs]][0].labels_file: cannot read"),
        ("[[inputs]]\nmean = 1e300\nstd = 1", "[[inputs]][0]: expected finite numbers"),
        ("[[inputs]]\nmean = 1\nstd = 1e-60", "[[inputs]][0]: expected finite numbers and no std of 0"),
        ("outputs = 3", "expected [[outputs]] tables"),
        ("name = ", "cannot read"),
    ],
)
def test_a_wrong_toml_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    """A model.toml with an invalid entry is refused with its place and the expected form."""
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_model_toml(tmp_path / "model.toml", read_model(FLOAT.read_bytes()))
    assert expected in caught.value.message


@pytest.mark.parametrize("text", ["[[outputs]]\nlabels = ['one', 'two']", "[[inputs]]\nmean = [1, 2]\nstd = [1, 2]"])
def test_a_toml_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    """Two labels for ten classes, two means for one channel: refused before any file is produced."""
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(UsageError, match=r"has (10 values, but 2 labels|1 channels, but 2 normalization values)"):
        build(FLOAT, ["cpu"], BuildOptions(out=tmp_path, metadata=tmp_path / "model.toml"))


def test_labels_for_class_numbers_say_what_to_do(tmp_path: Path) -> None:
    """A model that ends in the class's number has no scores to label: the error says so."""
    net = Net()
    scores, axis = net.tensor("scores", (1, 5)), net.constant("axis", np.array(1, np.int32), "INT32")
    chosen = net.tensor("class", (1,), dtype="INT32")
    net.op("ARG_MAX", [scores, axis], [chosen])
    (tmp_path / "m.tflite").write_bytes(net.build([scores], [chosen]))
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne")
    with pytest.raises(UsageError) as caught:
        build(tmp_path / "m.tflite", ["cpu"], BuildOptions(out=tmp_path, labels=tmp_path / "names.txt"))
    assert "class numbers" in (caught.value.hint or "")


def _detector(first: str, second: str, anchors: int = 64) -> bytes:
    net = Net()
    x = net.tensor("x", (1, anchors, 5))
    outputs = [net.tensor(name, (1, anchors, 5)) for name in (first, second)]
    for output in outputs:
        net.op("LOGISTIC", [x], [output])
    return net.build([x], outputs, (["x"], [first, second]))


def test_labels_along_the_last_axis() -> None:
    """Labels of a detector's anchors go to the output named like scores; where none is, they are refused."""
    labels = ["a", "b", "c", "d", "e"]
    info = describe_model(read_model(_detector("boxes", "class_scores")), name="net", own=None, labels=labels)
    assert [list(output.labels) for output in info.outputs] == [[], labels]
    with pytest.raises(UsageError, match="no output has 5 classes") as caught:
        describe_model(read_model(_detector("first", "second")), name="net", own=None, labels=labels)
    assert "--metadata" in caught.value.hint
