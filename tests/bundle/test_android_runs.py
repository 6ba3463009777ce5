"""The generated Android loaders run: on a JVM, with a stand-in that replays the real runtime's outputs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jvm_tools
import numpy as np
import pytest
from bundle_specs import profile_of, spec_of, write_tree
from jvm_tools import Recording
from kotlin_tools import Kotlin
from PIL import Image

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.graph import read_model
from edgepack.profiles.model import BundleRule, SchemeRule
from edgepack.quantize import quantizer
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime import Runner, quantize
from edgepack.samples.source import Preprocess, read_image

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = 3
MODELS = ("digits-int8", "kws", "split-concat", "digits-float16", "mobilenet")
LANGUAGES = ("kotlin", "java")
#: Width, height and configuration of pictures: shrunk, widened, one row, the input's own size.
PICTURES = [(300, 197, "ARGB_8888"), (31, 5, "HARDWARE"), (640, 1, "ARGB_8888"), (128, 128, "ARGB_8888")]


def digits(scheme: str) -> tuple[bytes, list[list[np.ndarray]]]:
    """Return the example model in a scheme and its first samples."""
    tflite = (REPOSITORY / "tests" / "data" / "digits_float.tflite").read_bytes()
    with np.load(REPOSITORY / "examples" / "digits" / "samples.npz") as loaded:
        samples = loaded[loaded.files[0]].astype(np.float32)
    [name] = read_model(tflite).input_names()
    shape = Runner(tflite).inputs[0].shape
    batches = [{name: sample.reshape(shape)} for sample in samples[:50]]
    if scheme == "int8":
        ranges = choose_ranges(calibrate(tflite, batches), read_model(tflite), activation_bits=8)
        tflite = quantizer.quantize(tflite, SchemeRule("int8", "INT8"), ranges).tflite
    else:
        tflite = quantizer.quantize(tflite, SchemeRule("float16")).tflite
    return tflite, [[batch[name]] for batch in batches[:RUNS]]


def real_samples(tflite: bytes) -> list[list[np.ndarray]]:
    """Return real values all over each input's range and beyond it, most of them between two steps."""
    generator = np.random.default_rng(7)

    def one(scale: float, shape: tuple[int, ...]) -> np.ndarray:
        return generator.normal(0, 100 * scale, shape).astype(np.float32)

    return [[one(info.scale or 0.01, info.shape) for info in Runner(tflite).inputs] for _ in range(RUNS)]


def make(name: str, models: Path | None, package: str) -> tuple[BundleSpec, list[list[np.ndarray]]]:
    """Return the spec of one of `MODELS`, each for another kind of target, and its samples."""
    changes = {"android_package": package}
    if name.startswith("digits"):
        tflite, samples = digits(name.partition("-")[2])
        profile = profile_of("cpu", bundle=BundleRule("android", "none"))
        spec = spec_of(tflite, name, "cpu", profile=profile, **changes)
        labels = tuple((REPOSITORY / "examples" / "digits" / "labels.txt").read_text().split())
        # A label may be empty, the last one too.
        labels = (*labels[:-1], "")
        grey = replace(spec.inputs[0], preprocessing={"mean": 0.0, "std": 255.0})
        return replace(spec, inputs=(grey,), outputs=(replace(spec.outputs[0], labels=labels),)), samples
    assert models is not None
    if name == "kws":
        tflite = (models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()
        with np.load(models / "mlperf-tiny" / "kws_samples.npz") as loaded:
            values = loaded[max(loaded.files, key=lambda key: loaded[key].size)]
        info = Runner(tflite).inputs[0]
        samples = [[values[i].astype(np.float32).reshape(info.shape)] for i in range(RUNS)]
        return spec_of(tflite, name, "hexagon", **changes), samples
    if name == "mobilenet":
        tflite = (models / "coral" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
        profile = profile_of("cpu", bundle=BundleRule("android", "none"))
        spec = spec_of(tflite, name, "cpu", profile=profile, **changes)
        colour = replace(spec.inputs[0], preprocessing={"mean": [123.7, 116.3, 103.5], "std": 127.5})
        return replace(spec, inputs=(colour,)), real_samples(tflite)
    tflite = (models / "coral" / "split_concat.tflite").read_bytes()
    return spec_of(tflite, name, "android-gpu", **changes), real_samples(tflite)


@pytest.fixture(scope="module")
def models(shared_models: Path) -> dict[str, tuple[BundleSpec, list[list[np.ndarray]]]]:
    """Specs and samples by model, each in a package of its own."""
    return {name: make(name, shared_models, f"com.run{number}") for number, name in enumerate(MODELS)}


@pytest.fixture(scope="module")
def classes(
    kotlin: Kotlin,
    models: dict[str, tuple[BundleSpec, list[list[np.ndarray]]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder with the compiled loaders of all models, by language."""
    folder = tmp_path_factory.mktemp("loaders")
    for language, ending in (("kotlin", ".kt"), ("java", ".java")):
        for name, (spec, _) in models.items():
            files = render(replace(spec, language=language))
            write_tree({path: data for path, data in files.items() if path.endswith(ending)}, folder / language / name)
        compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
        done = compiler(sorted((folder / language).rglob(f"*{ending}")), folder / f"{language}-classes")
        assert done.returncode == 0, done.stderr
    return folder


Run = Callable[..., tuple[BundleSpec, Recording, Path, list[str]]]


@pytest.fixture
def run(
    kotlin: Kotlin,
    standins: Path,
    classes: Path,
    models: dict[str, tuple[BundleSpec, list[list[np.ndarray]]]],
    tmp_path: Path,
) -> Run:
    """Return a function that runs a model's loader and returns spec, recording, the runs' folder and the output."""

    def one(
        name: str,
        language: str = "kotlin",
        change: Callable[[Path], None] = lambda folder: None,
        pictures: Sequence[str] = (),
    ) -> tuple[BundleSpec, Recording, Path, list[str]]:
        spec, samples = models[name]
        recording = jvm_tools.record(spec.host.data, samples)
        jvm_tools.write_recording(tmp_path, recording, spec, len(pictures))
        jvm_tools.write_archive(render(spec), tmp_path / "app.zip")
        change(tmp_path)
        loader = classes / f"{language}-classes"
        done = jvm_tools.drive(kotlin, standins, loader, spec, tmp_path, RUNS, pictures)
        assert done.returncode == 0, done.stderr
        return spec, recording, tmp_path, done.stdout.splitlines()

    return one


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", MODELS)
def test_the_runtime_gets_what_python_gives_it(run: Run, name: str, language: str) -> None:
    """From the same real values the loader passes the same bytes to the runtime as Python; so does its self-test."""
    spec, recording, folder, _ = run(name, language)
    assert (folder / "model.bin").read_bytes() == spec.host.data
    golden = [list(case.inputs) for case in spec.golden.cases]
    for number, arrays in enumerate([*recording.raw, *golden, *[golden[0]] * jvm_tools.TIMED]):
        for position, array in enumerate(arrays):
            assert (folder / str(number) / f"received_{position}.bin").read_bytes() == array.tobytes()
    assert len(list(folder.glob("*/received_0.bin"))) == RUNS + len(golden) + jvm_tools.TIMED


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_python(run: Run, name: str, language: str) -> None:
    """The app's results equal Python's from the same raw outputs, bit for bit; the self-test agrees."""
    spec, recording, folder, printed = run(name, language)
    for number, arrays in enumerate(recording.results):
        for position, array in enumerate(arrays):
            found = np.frombuffer((folder / str(number) / f"result_{position}.bin").read_bytes(), np.float32)
            assert np.array_equal(found, array.reshape(-1)), (number, position)
    golden = [line.split() for line in printed if line.startswith("golden ")]
    assert len(golden) == len(spec.golden.cases) * len(spec.outputs)
    assert all(float(line[3]) == 0.0 and line[5] == "true" for line in golden)
    assert printed[-1] == "closed the model is closed"
    [times] = [line.split() for line in printed if line.startswith("benchmark ")]
    assert times[1:3] == ["CPU", "4"] and 0 < float(times[3]) <= float(times[4])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_best_labels_come_first(run: Run, language: str) -> None:
    """TopK gives the labels of the largest results, in order, with their values."""
    spec, recording, _, printed = run("digits-int8", language)
    scores = recording.results[-1][0].reshape(-1)
    best = np.argsort(-scores, kind="stable")[:3]
    found = [line.split(" ")[1:] for line in printed if line.startswith("label ")]
    assert f"labels {len(spec.outputs[0].labels)}" in printed
    assert [text for text, _ in found] == [spec.outputs[0].labels[i] for i in best]
    assert [np.float32(score) for _, score in found] == [scores[i] for i in best]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["digits-int8", "mobilenet"])
def test_pictures_become_what_python_makes_of_them(run: Run, name: str, language: str, tmp_path: Path) -> None:
    """A Bitmap of any size, grey or colour, reaches the runtime with the same bytes as from the build's own reader."""
    generator = np.random.default_rng(3)
    images, described = [], []
    for number, (width, height, config) in enumerate(PICTURES):
        # Bright towards the lower right, so that the mean over many pixels is not the same everywhere.
        ramp = np.linspace(0, 150, width)[None, :, None] + np.linspace(0, 100, height)[:, None, None]
        pixels = np.clip(ramp + generator.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(images[-1])
        red, green, blue = (pixels[:, :, channel].astype(np.uint32) for channel in range(3))
        (tmp_path / f"picture_{number}").write_bytes((0xFF000000 | red << 16 | green << 8 | blue).tobytes())
        described.append(f"picture_{number}:{width}:{height}:{config}")
    spec, _, folder, _ = run(name, language, pictures=described)
    info = Runner(spec.host.data).inputs[0]
    known = spec.inputs[0].preprocessing
    assert known is not None
    for number, image in enumerate(images):
        # The reader knows one mean and std for all channels: it is asked once per channel.
        means, stds = (np.broadcast_to(known[key], info.shape[3]) for key in ("mean", "std"))
        channels = [
            read_image(image, info.shape, np.dtype(np.float32), Preprocess((float(mean),), (float(std),)))[..., channel]
            for channel, (mean, std) in enumerate(zip(means, stds, strict=True))
        ]
        raw = quantize(info, np.stack(channels, axis=-1))
        assert len(np.unique(raw)) > 5
        received = (folder / str(RUNS + number) / "received_0.bin").read_bytes()
        assert received == raw.tobytes(), number


def test_the_self_test_sees_a_wrong_number(run: Run) -> None:
    """An output that is off by more than the tolerance is reported for its case and output, and for no other."""

    def spoil(folder: Path) -> None:
        place = folder / str(RUNS + 1) / "output_2.bin"
        raw = bytearray(place.read_bytes())
        raw[0] = (raw[0] + 9) % 256
        place.write_bytes(bytes(raw))

    *_, printed = run("split-concat", change=spoil)
    wrong = [line.split() for line in printed if line.startswith("golden ") and line.endswith("false")]
    assert [line[1] for line in wrong] == ["1"]
    assert float(wrong[0][3]) > float(wrong[0][4])


@pytest.mark.parametrize(
    ("name", "expected"), [("digits-int8", []), ("split-concat", ["GPU"]), ("kws", ["HTP", "DSP", "GPU"])]
)
def test_steps_down_to_the_cpu_and_says_why(run: Run, name: str, expected: list[str]) -> None:
    """Where no accelerator can be opened the loader runs on the CPU and gives one reason per step, in order.

    The GPU delegate here is the real class, whose native library this machine does not have.
    """
    *_, printed = run(name)
    assert "accelerator CPU" in printed
    reasons = [line.removeprefix("reason ").split(": ", 1) for line in printed if line.startswith("reason ")]
    assert [accelerator for accelerator, _ in reasons] == expected
    assert all(text.strip() for _, text in reasons)
