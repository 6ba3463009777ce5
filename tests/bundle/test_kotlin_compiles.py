"""The generated Kotlin and Java compile against the real artifacts with warnings as errors and round as the runtime."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_specs import profile_of, quantize_model, tiny_spec, write_tree
from kotlin_tools import Kotlin

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, TensorSpec
from edgepack.profiles.model import BundleRule
from edgepack.runtime import Runner
from edgepack.tasks import parse

pytestmark = pytest.mark.slow

EVIL = '*/ "${System.exit(1)}" \n class Evil /* $x'
DTYPES = ("FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL")


def variants() -> Iterator[BundleSpec]:
    """Yield specs for every target and option, tensor type and kind of name that the Android template knows."""
    yield tiny_spec("android-gpu")
    yield tiny_spec("hexagon")
    yield tiny_spec("hexagon", scheme="float16")
    yield tiny_spec("android-gpu", state="resource-variables")
    yield tiny_spec("android-gpu", profile=profile_of("cpu", bundle=BundleRule("android", "none")))
    pictures = tiny_spec("android-gpu", single_precision=True)
    known = {"mean": 127.5, "std": [58.4, 57.1, 57.4]}
    yield replace(pictures, inputs=(replace(pictures.inputs[0], preprocessing=known), pictures.inputs[1]))
    several = (
        TensorSpec(dtype, dtype, (1, 4, 4, 1), dtype, 0.1, 0, preprocessing=known | {"std": 1.0})
        for dtype in ("INT16", "INT8")
    )
    yield replace(pictures, inputs=(*several, pictures.inputs[0]), golden=Golden("x", "y", ()))
    yield tiny_spec(
        "android-gpu",
        name="Detection",
        inputs=(TensorSpec("image", "image", (1, 12, 16, 3), "FLOAT32"),),
        outputs=(TensorSpec("objects", "objects", (1, 40, 7), "FLOAT32"),),
        golden=Golden("x", "y", ()),
        task=parse("detection"),
    )
    plain = tuple(TensorSpec(dtype, dtype, (1, 2), dtype) for dtype in DTYPES)
    quantized = tuple(TensorSpec(dtype, dtype, (1, 2), dtype, 3.1e-5, 3) for dtype in ("INT8", "UINT8", "INT16"))
    yield tiny_spec("hexagon", inputs=plain + quantized, outputs=quantized + plain, golden=Golden("x", "y", ()))
    taken = [
        "runner",
        "outputs",
        "inputs",
        "listOf",
        "mapOf",
        "topK",
        "labels",
        "output",
        "k",
        "names",
        "values",
        "text",
    ]
    names = [
        *taken,
        "score",
        "status",
        "assets",
        "context",
        "threads",
        "index",
        "case",
        "hashCode",
        "class",
        "fun",
        EVIL,
        "",
    ]
    tensors = tuple(TensorSpec(name, name, (2,), "FLOAT32", labels=(EVIL, name)) for name in names)
    yield tiny_spec("hexagon", name=EVIL, inputs=tensors, outputs=tensors, golden=Golden("x", "y", ()))
    for name in (
        "Interpreter",
        "TensorSpec",
        "result",
        "String",
        "assets",
        "image spec",
        "Bitmap",
        "benchmark",
        "attempt",
        "Delegate",
        "2 fast",
        "class",
        "größe",
        "モデル",
    ):
        yield tiny_spec("hexagon", name=name)


LANGUAGES = {"kotlin": ".kt", "java": ".java"}


def sources_of(language: str, folder: Path) -> list[Path]:
    """Write all variants, each in a package of its own so that one run of the compiler compiles all."""
    found: list[Path] = []
    for number, spec in enumerate(variants()):
        files = render(replace(spec, android_package=f"com.variant{number}", language=language))
        assert not any(
            path.endswith(ending) for path in files for ending in set(LANGUAGES.values()) - {LANGUAGES[language]}
        )
        bundle = write_tree({p: d for p, d in files.items() if p.endswith(LANGUAGES[language])}, folder / str(number))
        found += sorted(bundle.rglob(f"*{LANGUAGES[language]}"))
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Kotlin files of all variants."""
    return sources_of("kotlin", tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def classes(kotlin: Kotlin, sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the compiled Kotlin classes of all variants."""
    output = tmp_path_factory.mktemp("classes")
    done = kotlin.compile(sources, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def java_classes(kotlin: Kotlin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the compiled Java classes of all variants."""
    output = tmp_path_factory.mktemp("java-classes")
    done = kotlin.compile_java(sources_of("java", tmp_path_factory.mktemp("java-sources")), output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_every_variant_compiles(classes: Path, java_classes: Path) -> None:
    """Each loader of each target compiles without a warning; nothing a name smuggled in became a class."""
    for folder in (classes, java_classes):
        names = [path.stem for path in folder.rglob("*.class")]
        assert names.count("ModelRunner") == len(list(variants()))
        assert "Evil" not in names


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        (4, ("TinyModel20", "TinyModel20$Result", "ModelStatus", "GoldenDifference", "Benchmark", "Label")),
        (5, ("TinyModel20", "Frame", "FrameMapping", "FramePoint")),
    ],
)
def test_both_languages_have_the_same_api(
    classes: Path, java_classes: Path, variant: int, names: tuple[str, ...]
) -> None:
    """The public methods of loader, result and frame are the same: an app can change the language, not its code."""
    listed: list[dict[str, list[str]]] = []
    for folder in (classes, java_classes):
        command = ["javap", "-public", "-cp", str(folder)]
        command += [f"com.variant{variant}.tinymodel20.{name}" for name in names]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        _, *listings = text.split("Compiled from ")
        listed.append({})
        for name, listing in zip(names, listings, strict=True):
            signatures = [line.strip().replace("final ", "") for line in listing.splitlines() if "(" in line]
            # Hidden from apps: what Kotlin adds for default values, and its internal constructors and properties.
            shown = name in ("TinyModel20", "Frame")
            hidden = ("$default", "kotlin.jvm", "$main(", *([] if shown else [f".{name}("]))
            listed[-1][name] = sorted(line for line in signatures if not any(text in line for text in hidden))
    assert listed[0] == listed[1]


def test_a_wrong_name_fails_in_java(kotlin: Kotlin, tmp_path: Path) -> None:
    """The check can fail: a name that the real artifacts do not have is an error, and so is a mere warning."""
    files = {p: d for p, d in render(tiny_spec("hexagon", language="java")).items() if p.endswith(".java")}
    for right, wrong in {
        b"QnnDelegate.Capability.DSP_RUNTIME": b"QnnDelegate.Capability.NO_RUNTIME",
        b"runForMultipleInputsOutputs": b"runForNoInputsOutputs",
        b"new ArrayList<>()": b"new ArrayList()",
    }.items():
        changed = {path: data.replace(right, wrong) for path, data in files.items()}
        assert changed != files
        folder = write_tree(changed, tmp_path / wrong.decode().rpartition(".")[2])
        done = kotlin.compile_java(sorted(folder.rglob("*.java")), folder / "out")
        assert done.returncode != 0


def test_a_wrong_name_fails(kotlin: Kotlin, sources: list[Path], tmp_path: Path) -> None:
    """The check can fail: names that the real artifacts do not have are errors, and so is a mere warning."""
    text = {
        "QnnDelegate.Capability.DSP_RUNTIME": "QnnDelegate.Capability.NO_RUNTIME",
        "bestOptionsForThisDevice": "worstOptionsForThisDevice",
        "runForMultipleInputsOutputs": "runForNoInputsOutputs",
        "openFd": "openNothing",
        "Interpreter.Options()": "Interpreter.Wishes()",
    }
    changed = []
    loader = [source for source in sources if "/src/main/" in source.as_posix() and "/variant1/" in source.as_posix()]
    for source in loader:
        content = source.read_text()
        for right, wrong in text.items():
            content = content.replace(right, wrong)
        (tmp_path / source.name).write_text(content)
        changed.append(tmp_path / source.name)
    done = kotlin.compile(changed, tmp_path / "out")
    assert done.returncode != 0
    for wrong in ("NO_RUNTIME", "worstOptionsForThisDevice", "runForNoInputsOutputs", "openNothing", "Wishes"):
        assert f"unresolved reference '{wrong}'" in done.stderr
    for source in loader:
        shutil.copy(source, tmp_path)
    runner = tmp_path / "ModelRunner.kt"
    runner.write_text(
        runner.read_text().replace("            val live = ", "            val idle = 1\n            val live = ")
    )
    done = kotlin.compile(changed, tmp_path / "out")
    assert done.returncode != 0 and "warnings found and -Werror specified" in done.stderr


_PROBE = """
package com.variant0.tinymodel20;

import java.nio.*;
import java.nio.file.*;

public class Probe {
  public static void main(String[] a) throws Exception {
    FloatBuffer in = ByteBuffer.wrap(Files.readAllBytes(Path.of(a[0]))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    float[] values = new float[in.remaining()];
    in.get(values);
    TensorSpec.Type type = TensorSpec.Type.valueOf(a[2]);
    TensorSpec spec = new TensorSpec("x", type, values.length, Float.parseFloat(a[3]), Integer.parseInt(a[4]));
    ByteBuffer raw = ByteBuffer.allocate(spec.getBytes()).order(ByteOrder.LITTLE_ENDIAN);
    spec.write(values, raw);
    float[] back = spec.readFloatArray(raw);
    ByteBuffer real = ByteBuffer.allocate(4 * back.length).order(ByteOrder.LITTLE_ENDIAN);
    real.asFloatBuffer().put(back);
    Files.write(Path.of(a[1] + ".raw"), raw.array());
    Files.write(Path.of(a[1] + ".real"), real.array());
  }
}
"""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"), [("INT8", 0.013, 7), ("UINT8", 0.5847029, 83), ("INT16", 3.1e-5, 0)]
)
def test_quantizes_bit_for_bit_as_the_runtime(
    kotlin: Kotlin,
    classes: Path,
    java_classes: Path,
    tmp_path: Path,
    language: str,
    dtype: str,
    scale: float,
    zero_point: int,
) -> None:
    """The compiled loader gives the raw bytes of the real runtime's QUANTIZE, and the real values of its DEQUANTIZE."""
    limits, step = np.iinfo(dtype.lower()), np.float32(scale)
    halves = (
        np.arange(limits.min - zero_point - 3, limits.max - zero_point + 3)[:: 1 + limits.max // 2000] + 0.5
    ) * step
    noise = np.random.default_rng(0).normal(0, (limits.max - limits.min) / 4 * scale, 5000)
    values = np.concatenate([halves, noise, [1e4 * limits.max * step, -1e4 * limits.max * step]]).astype("<f4")[None]
    [expected] = Runner(quantize_model(values.size, float(step), zero_point, dtype)).run([values])
    (tmp_path / "in").write_bytes(values.tobytes())
    (tmp_path / "Probe.java").write_text(_PROBE)
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), dtype, repr(float(step)), str(zero_point)]
    path = f"{classes if language == 'kotlin' else java_classes}:{kotlin.stdlib}"
    subprocess.run(["javac", "-cp", path, "-d", tmp_path, tmp_path / "Probe.java"], check=True, timeout=120)
    name = "com.variant0.tinymodel20.Probe"
    subprocess.run(["java", "-cp", f"{tmp_path}:{path}", name, *arguments], check=True, timeout=120)
    raw = np.frombuffer((tmp_path / "out.raw").read_bytes(), expected.dtype)
    assert np.array_equal(raw, expected.reshape(-1))
    real = ((raw.astype(np.int64) - zero_point) * float(step)).astype(np.float32)
    assert np.array_equal(np.frombuffer((tmp_path / "out.real").read_bytes(), "<f4"), real)
