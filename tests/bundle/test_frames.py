"""Frames of the Kotlin and Java loaders become what NumPy and Pillow make of them, without an allocation per frame."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from bundle_specs import tiny_spec, write_tree
from frame_reference import Case, Input, memory_of, planes_of, reference, resized
from kotlin_tools import STANDINS, Kotlin, coroutines

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, TensorSpec
from edgepack.tasks.decode.mapping import frame_mapping

pytestmark = pytest.mark.slow

LANGUAGES = {"kotlin": ".kt", "java": ".java"}
FITS = ("stretch", "letterbox", "center-crop")
PACKAGE = "com.frames.tinymodel20"
#: A name of the types that the converter of this loader knows -> scale and zero point.
TYPES = {"UINT8": (0.0187, 114), "INT8": (0.0186, -3), "INT16": (7e-5, 0), "FLOAT32": (0.0, 0)}


def frame_spec(language: str) -> BundleSpec:
    """Return a spec whose loader converts frames to inputs of all types."""
    known = {"mean": 127.5, "std": 127.5}
    inputs = tuple(TensorSpec(t, t, (1, 12, 16, 3), t, *facts, preprocessing=known) for t, facts in TYPES.items())
    spec = tiny_spec("android-gpu", inputs=inputs, golden=Golden("x", "y", ()), language=language)
    return replace(spec, android_package="com.frames")


@pytest.fixture(scope="module", params=LANGUAGES)
def loader(
    kotlin: Kotlin, standins: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> str:
    """Class path with a compiled loader and the programs of `standins/frames`."""
    return compile_loader(kotlin, standins, request.param, tmp_path_factory.mktemp("frames"))


def compile_loader(kotlin: Kotlin, standins: Path, language: str, folder: Path) -> str:
    """Compile a loader and the programs that use its frames, and return their class path."""
    rendered = render(frame_spec(language))
    tree = write_tree({path: data for path, data in rendered.items() if path.endswith(LANGUAGES[language])}, folder)
    classes, programs = folder / "classes", folder / "programs"
    libraries = coroutines()
    compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
    done = compiler(sorted(tree.rglob(f"*{LANGUAGES[language]}")), classes)
    assert done.returncode == 0, done.stderr
    against = replace(kotlin, classpath=(standins, classes, kotlin.stdlib, *libraries))
    done = against.compile_java([STANDINS / "frames" / "FrameCases.java"], programs, strict=False)
    assert done.returncode == 0, done.stderr
    stream = STANDINS / "frames" / f"StreamCases{LANGUAGES[language]}"
    done = against.compile([stream], programs) if language == "kotlin" else against.compile_java([stream], programs)
    assert done.returncode == 0, done.stderr
    return os.pathsep.join(map(str, (standins, classes, programs, kotlin.stdlib, *libraries)))


def convert(path: str, cases: Sequence[Case], folder: Path, *words: str) -> str:
    """Let a loader convert frames, in this order with one converter; returns what the program prints."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        for plane, data in enumerate(memory_of(case, planes_of(case, number))):
            (folder / f"{number}.{plane}").write_bytes(data)
    (folder / "cases.txt").write_text("".join(f"{number} {case.words()}\n" for number, case in enumerate(cases)))
    return java(path, "FrameCases", str(folder), *words)


def java(path: str, program: str, *words: str) -> str:
    """Run one of the programs of `standins/frames` and return what it prints."""
    command = ["java", "-cp", path, f"{PACKAGE}.{program}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wrong(cases: Sequence[Case], folder: Path) -> list[str]:
    """Return the cases whose input is not the reference's, bit for bit."""
    found = []
    for number, case in enumerate(cases):
        expected = reference(case, planes_of(case, number))
        assert case.width < 8 or len(np.unique(expected)) > 5
        actual = np.frombuffer((folder / f"{number}.out").read_bytes(), expected.dtype).reshape(expected.shape)
        if not np.array_equal(actual, expected):
            off = np.abs(actual.astype(np.float64) - expected)
            found.append(f"{case}: {np.count_nonzero(off)} of {off.size} differ, by {off.max()} at most")
    return found


FORMATS = [
    Case("yuv"),
    Case("yuv", stride=80, uv_stride=96, uv_pixel=2),
    Case("yuv", width=63, height=47, stride=64, uv_stride=33),
    Case("image", width=61, height=49, stride=72, uv_stride=128, uv_pixel=3),
    Case("yuv", uv_pixel=4),
    Case("nv21"),
    Case("nv12", width=33, height=21),
    Case("rgba", width=50, height=31, stride=216),
    Case("rgba-image"),
    Case("ARGB_8888", width=50, height=31),
    Case("HARDWARE"),
]


def layouts() -> list[Case]:
    """Return formats with strides and odd sizes, each whole and cropped at odd places, for color and grey."""
    found = []
    for channels, case in product((3, 1), FORMATS):
        cropped = replace(case, crop=(3, 5, case.width - 4, case.height - 2))
        found += [replace(one, input=Input(channels=channels)) for one in (case, cropped)]
    return found


def geometries() -> list[Case]:
    """Return every rotation, mirrored or not, for every way to fit, of YUV and RGBA."""
    cases = (
        Case("yuv", uv_stride=70, uv_pixel=2),
        Case("rgba"),
        Case("yuv", width=45, height=71, crop=(7, 10, 40, 61)),
    )
    return [
        replace(case, rotation=rotation, mirror=mirror, input=Input(fit=fit))
        for fit, case, rotation, mirror in product(FITS, cases, (0, 90, 180, 270), (False, True))
    ]


def sizes() -> list[Case]:
    """Return frames that are enlarged, kept, much reduced, and of one pixel, one row and one column."""
    pictures = [(5, 4), (16, 12), (7, 90), (300, 3), (1, 1), (2, 1), (1, 40), (641, 479)]
    return [
        Case(kind, width=width, height=height, rotation=rotation, input=Input(fit=fit))
        for fit, (width, height), kind, rotation in product(FITS, pictures, ("yuv", "rgba"), (0, 90))
    ]


def types() -> list[Case]:
    """Return inputs of every type that can store real values, some of which are out of its range."""
    wide = {name: Input(dtype=name, scale=scale, zero_point=zero) for name, (scale, zero) in TYPES.items()}
    narrow = [replace(wide[name], scale=wide[name].scale / 3) for name in ("UINT8", "INT8", "INT16")]
    return [Case(kind, input=place) for place in (*wide.values(), *narrow) for kind in ("yuv", "rgba")]


GROUPS: dict[str, Callable[[], list[Case]]] = {
    "layouts": layouts,
    "geometries": geometries,
    "sizes": sizes,
    "types": types,
}


@pytest.mark.parametrize("group", GROUPS)
def test_frames_become_what_numpy_and_pillow_make_of_them(loader: str, tmp_path: Path, group: str) -> None:
    """Every frame becomes the same bits, whichever came before: the converter notices what changed."""
    cases = GROUPS[group]()
    convert(loader, cases, tmp_path)
    assert wrong(cases, tmp_path) == []


def test_places_of_the_input_are_found_in_the_frame(loader: str, tmp_path: Path) -> None:
    """The mapping is that of the Python loader: corners and a point within, for every geometry."""
    cases = geometries()
    convert(loader, cases, tmp_path)
    for number, case in enumerate(cases):
        left, top, right, bottom = case.box
        size = case.input.width, case.input.height
        crop = (left, top, right - left, bottom - top)
        mapping = frame_mapping(crop, size, case.input.fit, rotation=case.rotation, mirror=case.mirror)
        expected = [mapping.to_original(x, y) for x, y in ((0, 0), (1, 0), (0.25, 0.75), (1, 1))]
        assert np.loadtxt(tmp_path / f"{number}.map") == pytest.approx(np.array(expected), abs=1e-4), case


def test_turning_before_resizing_differs_by_one_at_most() -> None:
    """A frame that is turned first, as Python's loader does it, becomes the same pixels but for the rounding."""
    for rotation, mirror in product((90, 180, 270), (False, True)):
        case = Case("rgba", 61, 47, rotation=rotation, mirror=mirror)
        [pixels] = planes_of(case)
        turned = np.rot90(pixels, -rotation // 90)
        turned = np.ascontiguousarray(turned[:, ::-1] if mirror else turned)
        upright = replace(case, width=turned.shape[1], height=turned.shape[0], rotation=0, mirror=False)
        first, last = (resized(one, [values]).astype(int) for one, values in ((case, pixels), (upright, turned)))
        first = np.rot90(first, -rotation // 90)
        first = first[:, ::-1] if mirror else first
        assert np.abs(first - last).max() <= 1


@pytest.mark.parametrize("fit", FITS)
def test_nothing_is_allocated_after_the_first_frames(loader: str, tmp_path: Path, fit: str) -> None:
    """The JVM counts no byte for 200 further conversions of a frame, whatever its format and the input's type."""
    cases = [
        Case(kind, 160, 120, uv_pixel=2 if kind == "yuv" else 1, rotation=90, input=Input(fit=fit, dtype=name))
        for name, kind in (("UINT8", "yuv"), ("INT8", "nv21"), ("INT16", "rgba"), ("FLOAT32", "ARGB_8888"))
    ]
    printed = convert(loader, cases, tmp_path, "200")
    assert [line.split()[0] for line in printed.splitlines()] == ["0"] * len(cases)


def test_wrong_frames_are_refused(loader: str) -> None:
    """A buffer that is too small, strides, a crop, an angle or a format that cannot be are errors that say why."""
    assert java(loader, "FrameCases").splitlines() == [
        "expected at least 16 bytes of pixels, got 10",
        "expected at least 24 bytes of pixels, got 23",
        "expected strides for 2 values in a row, got a row stride of 6 and a pixel stride of 4",
        "expected a picture with pixels, got 0 x 2",
        "crop: expected a rectangle within 2 x 2, got (1, 0, 3, 2)",
        "degrees: expected a multiple of 90, got 45",
        "image: expected the format YUV_420_888 or RGBA_8888, got 256",
    ]


def test_frames_are_dropped_while_the_model_is_busy(loader: str) -> None:
    """A stream works on one frame at a time, releases every one, and passes on results and the error of a run."""
    assert java(loader, "StreamCases").splitlines() == [
        "first true",
        "dropped false, released 1",
        "result 4, released 2",
        "second true",
        "result 6, released 3",
        "error no model",
        "closed false, released 5",
    ]
