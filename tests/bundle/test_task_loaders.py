"""Results of the Kotlin and Java loaders are those of Python's decoders, on a frame and on the result of a run."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jvm_tools
import numpy as np
import pytest
from bundle_specs import profile_of, tiny_spec, write_tree
from frame_reference import scene
from kotlin_tools import Kotlin

from edgepack.bundle.context import make_context
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, TensorSpec
from edgepack.choices import Task
from edgepack.profiles.model import BundleRule
from edgepack.tasks import TaskSpec, parse
from edgepack.tasks.decode.mapping import frame_mapping

pytestmark = pytest.mark.slow

LANGUAGES = {"kotlin": ".kt", "java": ".java"}
LABELS = ("cat", "dog", "sea lion")
WIDTH, HEIGHT = 16, 12
#: Scale and zero point of quantized outputs.
QUANTIZED = (0.0117, -20)
METHODS = {
    Task.CLASSIFICATION: "classify",
    Task.DETECTION: "detect",
    Task.SEGMENTATION: "segment",
    Task.KEYPOINTS: "keypoints",
    Task.EMBEDDING: "embed",
}


@dataclass(frozen=True)
class Variant:
    """A model with a task.

    Attributes:
        task: As `--task` has it.
        shapes: Shapes of the outputs.
        dtype: TFLite type of the outputs.
        fit: How frames get the input's size.
    """

    task: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "FLOAT32"
    fit: str = "letterbox"

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        found = parse(self.task)
        assert found is not None
        return found


VARIANTS = {
    "classes": Variant("classification", ((1, 9),)),
    "logits": Variant("classification,activation=softmax", ((1, 1, 1, 3),)),
    "sigmoids": Variant("classification,activation=sigmoid", ((1, 3),), "INT8"),
    "joined": Variant("detection,score=0.6", ((1, 40, 7),)),
    "transposed": Variant("detection,transposed=yes,units=pixel,activation=sigmoid", ((1, 7, 40),), fit="center-crop"),
    "objectness": Variant("detection,objectness=yes,boxes=xywh,score=0.3", ((1, 40, 8),), fit="stretch"),
    "certain": Variant("detection,objectness=yes,activation=sigmoid,boxes=xyxy", ((1, 40, 6),)),
    "separate": Variant(
        "detection,layout=separate,outputs=1+0,background=yes,boxes=yxyx,activation=softmax",
        ((1, 30, 4), (1, 30, 4)),
    ),
    "postprocess": Variant("detection,layout=postprocess", ((1, 10, 4), (1, 10), (1, 10), (1,))),
    "mask": Variant("segmentation", ((1, 6, 8, 3),)),
    "planes": Variant("segmentation,transposed=yes", ((1, 3, 6, 8),), fit="center-crop"),
    "binary": Variant("segmentation,activation=sigmoid", ((1, 12, 16, 1),), fit="stretch"),
    "numbers": Variant("segmentation,layout=classes", ((1, 24, 32),), "INT64"),
    "points": Variant("keypoints", ((1, 1, 17, 3),)),
    "pairs": Variant("keypoints,points=xy,units=pixel", ((1, 5, 2),), fit="center-crop"),
    "heatmaps": Variant("keypoints,layout=heatmaps", ((1, 6, 8, 4),)),
    "embedding": Variant("embedding", ((1, 32),)),
}
FRAMES = [
    ((50, 40), (3, 4, 47, 39), 0, False),
    ((31, 45), (0, 0, 31, 45), 90, True),
    ((40, 30), (1, 0, 40, 29), 270, False),
]


def outputs_of(variant: Variant) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return outputs such as a model gives, as the runtime has them and as real values."""
    generator = np.random.default_rng(len(variant.task))
    spec = variant.spec
    if variant.dtype == "INT64":
        values = [generator.integers(0, 4, shape) for shape in variant.shapes]
        return values, values
    values = [generator.normal(0.5, 0.3, shape).astype(np.float32) for shape in variant.shapes]
    if spec.layout == "postprocess":
        corners = np.sort(generator.random((1, 10, 2, 2)), axis=2).astype(np.float32)
        values[:2] = [corners.reshape(1, 10, 4), generator.integers(0, 3, (1, 10)).astype(np.float32)]
        values[3] = np.array([8], np.float32)
    elif spec.units == "pixel":
        entries = np.moveaxis(values[0], 1, 2) if spec.transposed else values[0]
        entries[..., :4] *= np.float32([WIDTH, HEIGHT] * 2)[: min(entries.shape[2], 4)]
    elif spec.layout == "separate":
        values[0] *= 4
    if variant.dtype != "INT8":
        return values, values
    scale, zero = QUANTIZED
    raw = [np.clip(np.rint(one / scale) + zero, -128, 127).astype(np.int8) for one in values]
    return raw, [((one.astype(np.int64) - zero) * float(np.float32(scale))).astype(np.float32) for one in raw]


def make_spec(name: str, language: str) -> BundleSpec:
    """Return the spec of a variant, in a package of its own."""
    variant = VARIANTS[name]
    facts = QUANTIZED if variant.dtype == "INT8" else (0.0, 0)
    known = {"mean": 127.5, "std": 127.5, "resize": variant.fit}
    return tiny_spec(
        "cpu",
        name=name,
        profile=profile_of("cpu", bundle=BundleRule("android", "none")),
        inputs=(TensorSpec("image", "image", (1, HEIGHT, WIDTH, 3), "FLOAT32", preprocessing=known),),
        outputs=tuple(
            TensorSpec(f"output {n}", f"{n}", shape, variant.dtype, *facts) for n, shape in enumerate(variant.shapes)
        ),
        golden=Golden("x", "y", ()),
        language=language,
        android_package="com.tasks",
        task=variant.spec,
        task_labels=() if name == "logits" else LABELS,
    )


def audio_spec(language: str) -> BundleSpec:
    """Return the spec of a model that classifies windows of eight samples."""
    spec = replace(make_spec("classes", language), name="audio", task=parse("audio"), state="variable-tensors")
    return replace(spec, inputs=(TensorSpec("samples", "samples", (1, 8), "FLOAT32"),))


def specs(language: str) -> dict[str, BundleSpec]:
    """Return the specs of all loaders in a language."""
    return {**{name: make_spec(name, language) for name in VARIANTS}, "audio": audio_spec(language)}


STREAMS = ((3, 8), (20, 5), (1, 1))


@pytest.fixture(scope="module", params=LANGUAGES)
def driven(
    kotlin: Kotlin, standins: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """Folder with what an app gets from each loader: `VARIANT/FRAME/printed` and `audio/STREAM/printed`."""
    language, folder = request.param, tmp_path_factory.mktemp("tasks")
    ending = LANGUAGES[language]
    lines = []
    for name, spec in specs(language).items():
        files = render(spec)
        write_tree({p: d for p, d in files.items() if p.endswith(ending) and "/coroutines/" not in p}, folder / name)
        context = make_context(spec)
        model = f"{context['kotlin_package']}.{context['class_name']}"
        for number in range(3):
            place = folder / name / str(number)
            place.mkdir()
            jvm_tools.write_archive(files, place / "app.zip")
            lines.append(" ".join(map(str, (place, model, *prepare(name, number, place)))))
    (folder / "lines").write_text("\n".join(lines))
    compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
    done = compiler(sorted(folder.rglob(f"*{ending}")), folder / "classes")
    assert done.returncode == 0, done.stderr
    jars = [jar for jar in kotlin.classpath if "android-all" not in jar.name]
    path = os.pathsep.join(map(str, (standins, folder / "classes", kotlin.stdlib, *jars)))
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", path, "DriveTask", str(folder / "lines")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return folder


def prepare(name: str, number: int, folder: Path) -> list[Any]:
    """Write the inputs and the raw outputs of a loader's runs, and return how the driver uses it."""
    if name == "audio":
        chunk, hop = STREAMS[number]
        samples, _, outputs = stream_of(hop)
        (folder / "samples").write_bytes(samples.tobytes())
        words, runs = ["stream", chunk, hop], [[one] for one in outputs]
    else:
        (width, height), crop, rotation, mirror = FRAMES[number]
        (folder / "frame").write_bytes(np.dstack([scene(width, height), scene(width, height)[..., :1]]).tobytes())
        words = [METHODS[VARIANTS[name].spec.kind], width, height, *crop, rotation, int(mirror)]
        runs = [outputs_of(VARIANTS[name])[0]] * 2
    for run, outputs in enumerate(runs):
        (folder / str(run)).mkdir()
        for position, output in enumerate(outputs):
            (folder / str(run) / f"output_{position}.bin").write_bytes(output.tobytes())
    return words


def stream_of(hop: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return samples, their windows and an output for each."""
    samples = np.random.default_rng(2).normal(size=30).astype(np.float32)
    windows = [samples[start : start + 8] for start in range(0, 23, hop)]
    return samples, windows, [np.random.default_rng(n).random((1, 9)).astype(np.float32) for n in range(len(windows))]


def printed_in(folder: Path) -> list[list[str]]:
    """Return what the driver printed, in words."""
    return [line.split(" ") for line in (folder / "printed").read_text().splitlines()]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the Python packages that the same specs have on Linux."""
    folder = tmp_path_factory.mktemp("python-tasks")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def expected_of(name: str, decoders: Path, real: list[np.ndarray], mapping: Any, parameters: dict[str, Any]) -> Any:
    """Return what the Python package of the same bundle decodes."""
    spec = replace(make_spec(name, "kotlin"), profile=profile_of("cpu"), name=f"python_{name}")
    package = make_context(spec)["python_package"]
    if not (decoders / package).exists():
        files = {p.partition("/src/")[2]: d for p, d in render(spec).items() if f"/src/{package}/" in p}
        write_tree(files, decoders)
    module = importlib.import_module(f"{package}._task")
    return module.decode(
        [real[position] for position in VARIANTS[name].spec.outputs],
        *([] if mapping is None else [mapping]),
        **parameters,
    )


def lines_of(results: Any) -> list[list[Any]]:
    """Return results in the order in which the driver prints them."""
    if isinstance(results, np.ndarray):
        return [[value] for value in results]
    kinds = ("label", "name", "index", "score", "x", "y", "left", "top", "right", "bottom")
    return [[getattr(one, kind) for kind in kinds if hasattr(one, kind)] for one in results]


def assert_same(printed: list[list[str]], results: Any) -> None:
    """Compare results; texts and whole numbers are equal, real ones to six digits."""
    expected = lines_of(results)
    assert len(printed) == len(expected)
    for words, values in zip(printed, expected, strict=True):
        texts = [value for value in values if isinstance(value, str)]
        # A label may have spaces.
        label = " ".join(words[: len(words) - len(values) + 1]) if texts else None
        assert texts == ([label] if texts else [])
        numbers = words[len(words) - len(values) + len(texts) :]
        assert [float(word) for word in numbers] == pytest.approx(values[len(texts) :], rel=2e-6, abs=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_results_are_those_of_python(driven: Path, decoders: Path, name: str) -> None:
    """Both forms give what the Python package decodes from the same outputs, for turned and cropped frames."""
    variant = VARIANTS[name]
    _, real = outputs_of(variant)
    context = make_context(make_spec(name, "kotlin"))["python_task"]
    parameters = {
        one.name: float(one.default) if one.type == "float" else int(one.default) for one in context.parameters
    }
    for number, (_, crop, rotation, mirror) in enumerate(FRAMES):
        area = (crop[0], crop[1], crop[2] - crop[0], crop[3] - crop[1])
        mapping = frame_mapping(area, (WIDTH, HEIGHT), variant.fit, rotation=rotation, mirror=mirror)
        results = expected_of(name, decoders, real, mapping if context.mapped else None, parameters)
        printed = printed_in(driven / name / str(number))
        for form in ("frame", "result"):
            found = [line[1:] for line in printed if line[0] == form]
            if variant.spec.kind == Task.SEGMENTATION:
                mask = np.frombuffer((driven / name / str(number) / form).read_bytes(), np.uint8)
                assert np.array_equal(mask.reshape(results.mask.shape), results.mask)
                assert_same(found, results.shares())
            else:
                assert len(found) > 1
                assert_same(found, results)


@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_a_stream_classifies_each_window(driven: Path, number: int) -> None:
    """Chunks of any length give the windows of the whole stream to the runtime, and the classes of each."""
    _, windows, outputs = stream_of(STREAMS[number][1])
    folder = driven / "audio" / str(number)
    for run, window in enumerate(windows):
        assert (folder / str(run) / "received_0.bin").read_bytes() == window.tobytes()
    best = [str(place) for one in outputs for place in np.argsort(-one[0])[:2]]
    assert [line[-2] for line in printed_in(folder)] == best


def test_only_the_task_of_the_bundle_is_generated() -> None:
    """A loader has the classes of its own task, and none without one."""
    own = {"Scored", "Detection", "Segmentation", "Keypoint", "Embeddings", "AudioStream"}
    expected = {"classes": {"Scored"}, "mask": {"Scored", "Segmentation"}, "audio": {"Scored", "AudioStream"},
                "joined": {"Detection"}, "points": {"Keypoint"}, "embedding": {"Embeddings"}}  # fmt: skip
    for language, ending in LANGUAGES.items():
        for name, classes in expected.items():
            files = {path.rpartition("/")[2] for path in render(specs(language)[name])}
            assert {one.removesuffix(ending) for one in files} & own == classes
        plain = {
            path.rpartition("/")[2].removesuffix(ending) for path in render(tiny_spec("hexagon", language=language))
        }
        assert plain & own == set()
