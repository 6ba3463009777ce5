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
from frame_reference import Case, Input, memory_of, planes_of, reference
from kotlin_tools import STANDINS, Kotlin

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, TensorSpec

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
    """Class path with a compiled loader and the program that converts frames with it."""
    language, folder = request.param, tmp_path_factory.mktemp("frames")
    rendered = render(frame_spec(language))
    tree = write_tree({path: data for path, data in rendered.items() if path.endswith(LANGUAGES[language])}, folder)
    classes, program = folder / "classes", folder / "program"
    compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
    done = compiler(sorted(tree.rglob(f"*{LANGUAGES[language]}")), classes)
    assert done.returncode == 0, done.stderr
    against = replace(kotlin, classpath=(standins, classes, kotlin.stdlib))
    done = against.compile_java([STANDINS / "frames" / "FrameCases.java"], program, strict=False)
    assert done.returncode == 0, done.stderr
    return os.pathsep.join(map(str, (standins, classes, program, kotlin.stdlib)))


def convert(path: str, cases: Sequence[Case], folder: Path, *words: str) -> str:
    """Let a loader convert frames, in this order with one converter; returns what the program prints."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        for plane, data in enumerate(memory_of(case, planes_of(case, number))):
            (folder / f"{number}.{plane}").write_bytes(data)
    (folder / "cases.txt").write_text("".join(f"{number} {case.words()}\n" for number, case in enumerate(cases)))
    command = ["java", "-cp", path, f"{PACKAGE}.FrameCases", str(folder), *words]
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
