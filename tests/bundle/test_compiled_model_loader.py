"""LiteRT 2: the loaders run a model with CompiledModel, here a stand-in, and files compiled for a chip."""

import json
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_specs import profile_of, tiny_spec, write_tree
from kotlin_tools import Kotlin

from edgepack.bundle.android_runtime import (
    compiled_for,
    compiled_model_problem,
    dependencies,
    higher_version,
    runs_compiled,
    runtime_of,
    runtime_reason,
)
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, CheckedFor, Golden, GoldenCase, ModelFile, SimulatedGolden, TensorSpec
from edgepack.choices import AndroidRuntime
from edgepack.errors import BundleError
from edgepack.profiles.model import BundleRule

FILES = (
    ModelFile("host", "tiny.tflite", b"host"),
    ModelFile("compiled", "tiny_Qualcomm_SM8650.tflite", b"for v75"),
    ModelFile("compiled", "tiny_Qualcomm_SM8550.tflite", b"for v73"),
)
TYPES = ("FLOAT32", "INT8", "INT32", "BOOL")
LANGUAGES = {"kotlin": ".kt", "java": ".java"}
PROFILES = {"cpu": profile_of("cpu", bundle=BundleRule("android", "none"))}


def compiled_spec(**changes: object) -> BundleSpec:
    """A model from two floats to two floats, compiled for two chips."""
    spec = tiny_spec(
        "hexagon", models=FILES, runs="tiny.tflite", socs=("SM8550", "SM8650"), golden=Golden("x", "y", ())
    )
    one = replace(
        spec,
        inputs=(TensorSpec("x", "x", (1, 2), "FLOAT32"),),
        outputs=(TensorSpec("y", "y", (1, 2), "FLOAT32"),),
    )
    return replace(one, **changes)


def plain_spec(target: str, **changes: object) -> BundleSpec:
    """The same without compiled files, for LiteRT 2."""
    profile = PROFILES.get(target) or profile_of(target)
    return compiled_spec(profile=profile, models=FILES[:1], runtime="litert2", **changes)


def simulated_spec(**changes: object) -> BundleSpec:
    """The same with golden vectors, of which one chip's accelerator was simulated: it differs from the CPU by 1."""
    inputs, cpu, chip = (np.array([values], np.float32) for values in ([1.5, -2.0], [1.5, -1.0], [1.5, -2.0]))
    simulated = SimulatedGolden("SM8550", "a simulator", "1", ((chip,),), relative=1e-3)
    golden = Golden("x", "y", (GoldenCase((inputs,), (cpu,)),), simulated=(simulated,))
    return compiled_spec(golden=golden, **changes)


def test_the_self_test_knows_what_the_simulator_returned() -> None:
    """The loader's assets have the simulator's outputs, at the path that the loader reads on that chip."""
    files = render(simulated_spec())
    [source] = [files[p].decode() for p in files if p.endswith("TinyModel20.kt")]
    assert '"SM8550" to "tiny_model_2_0/golden/simulated/SM8550"' in source
    [asset] = [data for p, data in files.items() if p.endswith("assets/tiny_model_2_0/golden/simulated/SM8550/case_0/output_0.bin")]  # fmt: skip # noqa: E501
    assert np.array_equal(np.frombuffer(asset, "<f4"), [1.5, -2.0])
    assert files["golden/simulated/SM8550/case_0/output_0.bin"] == asset
    [plain] = [data.decode() for p, data in render(compiled_spec()).items() if p.endswith("TinyModel20.kt")]
    assert "SIMULATED" not in plain


def test_the_loader_names_the_file_of_each_chip() -> None:
    """The module contains the host file and one file per chip, and depends on the LiteRT that has CompiledModel."""
    spec = compiled_spec()
    files = render(spec)
    assets = {path.rpartition("/")[2] for path in files if "/assets/" in path and path.endswith(".tflite")}
    assert assets == {model.filename for model in FILES}
    [source] = [files[p].decode() for p in files if p.endswith("CompiledEngine.kt")]
    for entry in compiled_for(spec):
        assert f'"{entry.soc}" to "tiny_model_2_0/{entry.filename}"' in source
    names = [dependency.coordinates for dependency in dependencies(spec)]
    assert all(name.startswith("com.google.ai.edge.litert:") and ":2." in name for name in names)
    assert b"litert_npu_runtime_libraries" in files["README.md"]
    assert b"| compiled, for its chip |" in files["README.md"]


def test_in_an_ai_pack_the_path_is_that_of_the_chips_folder() -> None:
    """Play takes the group off a folder's name, so the loader finds its chip's file at the path it has in a module."""
    files = render(compiled_spec(delivery="ai-pack"))
    packed = {path.partition("/assets/")[2] for path in files if "-pack/" in path and path.endswith(".tflite")}
    assert "tiny_model_2_0#group_Qualcomm_SM8550/tiny_Qualcomm_SM8550.tflite" in packed
    assert "tiny_model_2_0#group_other/tiny.tflite" in packed
    [source] = [files[p].decode() for p in files if p.endswith("CompiledEngine.kt")]
    assert '"tiny_model_2_0/tiny_Qualcomm_SM8550.tflite"' in source


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": (TensorSpec("y", "y", (1, 2), "INT16", 0.1, 0),)}, "INT16"),
        ({"signature_order": False}, "another order"),
    ],
)
def test_what_the_loader_cannot_run_keeps_the_delegate(changes: dict[str, object], words: str) -> None:
    """Where CompiledModel cannot be used, the loader is the one with Qualcomm's delegate, and the reason is known."""
    spec = compiled_spec(**changes)
    assert words in compiled_model_problem(spec)
    assert not runs_compiled(spec)
    files = render(spec)
    assert any(b"QnnDelegate" in data for path, data in files.items() if path.endswith((".kt", ".java")))
    assert not [path for path in files if "/assets/" in path and "Qualcomm" in path]
    assert words in json.loads(files["manifest.json"])["android"]["reason"]


@pytest.mark.parametrize(
    ("target", "changes", "runtime", "reason"),
    [
        ("cpu", {}, "litert1", "every tensor type"),
        ("android-gpu", {}, "litert1", "GPU delegate of its Interpreter"),
        ("android-gpu", {"checked": CheckedFor("ml-drift")}, "litert2", "ML Drift"),
        ("hexagon", {}, "litert1", "Qualcomm's delegate"),
        ("hexagon", {"models": FILES}, "litert2", "compiled ahead of time"),
        ("hexagon", {"runtime": "litert2"}, "litert2", "requested"),
    ],
)
def test_the_runtime_is_what_the_bundle_needs(
    target: str, changes: dict[str, object], runtime: str, reason: str
) -> None:
    """Manifest and README name one runtime, why, its artifact, and what an app gets that resolves to a higher one."""
    spec = replace(plain_spec(target), **{"runtime": "", **changes})
    assert runtime_of(spec) == runtime
    files = render(spec)
    entry = json.loads(files["manifest.json"])["android"]
    assert entry == {
        "runtime": runtime,
        "reason": runtime_reason(spec),
        "artifact": dependencies(spec)[0].coordinates,
        "higher_version": higher_version(spec),
    }
    assert reason in entry["reason"]
    assert f":litert:{'2.3.0' if runtime == 'litert2' else '1.4.2'}" in entry["artifact"]
    assert entry["artifact"].encode() in files["README.md"]
    used = {"litert1": b"org.tensorflow.lite", "litert2": b"com.google.ai.edge.litert"}
    loader = b"".join(data for path, data in files.items() if path.endswith((".kt", ".pro")))
    other = AndroidRuntime.LITERT2 if runtime == "litert1" else AndroidRuntime.LITERT1
    assert used[runtime] in loader and used[other] not in loader


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (compiled_spec(runtime="litert1"), "tiny_Qualcomm_SM8550.tflite, .* need LiteRT 2's CompiledModel"),
        (tiny_spec("android-gpu", runtime="litert2"), "no buffers of the type INT64, UINT8"),
    ],
)
def test_a_runtime_that_cannot_run_the_bundle_is_refused(spec: BundleSpec, words: str) -> None:
    """LiteRT 1 for compiled files, LiteRT 2 for types without buffers: an error that says what to do."""
    with pytest.raises(BundleError, match=words) as caught:
        render(spec)
    assert "--runtime" in (caught.value.hint or "")


def variants() -> dict[str, BundleSpec]:
    """Return a spec for each path through the loaders of LiteRT 2."""
    every = tuple(TensorSpec(dtype, dtype, (1, 2), dtype) for dtype in TYPES)
    quantized = (TensorSpec("q", "q", (1, 2), "INT8", 0.1, 3, ("a", "b")),)
    return {
        "compiled": compiled_spec(),
        "types": compiled_spec(inputs=every, outputs=every),
        "quantized": compiled_spec(inputs=quantized, outputs=quantized, single_precision=True),
        "simulated": simulated_spec(),
        "plain": plain_spec("hexagon"),
        "gpu": plain_spec("android-gpu"),
        "single": plain_spec("android-gpu", single_precision=True),
        "stateful": plain_spec("cpu", state="variable-tensors"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_it_compiles_and_runs_on_the_stand_in(kotlin: Kotlin, standins: Path, tmp_path: Path, language: str) -> None:
    """NPU, else GPU, else CPU, each with the reasons; whatever happens, everything is closed."""
    sources = []
    for name, spec in variants().items():
        files = render(replace(spec, android_package=f"com.{name}", language=language))
        tree = {p: d for p, d in files.items() if p.endswith(LANGUAGES[language])}
        sources += sorted(write_tree(tree, tmp_path / name).rglob(f"*{LANGUAGES[language]}"))
        if name == "simulated":
            with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
                for path, data in files.items():
                    if "/assets/" in path:
                        archive.writestr(f"assets/{path.partition('/assets/')[2]}", data)
    classes = tmp_path / "classes"
    done = kotlin.compile(sources, classes) if language == "kotlin" else kotlin.compile_java(sources, classes)
    assert done.returncode == 0, done.stderr
    jars = [jar for jar in kotlin.classpath if "android-all" not in jar.name]
    path = os.pathsep.join(map(str, [standins, classes, kotlin.stdlib, *jars]))

    def drive(name: str, soc: str, failing: str = "", sdk: int = 34, *flags: str) -> dict[str, str]:
        options = [f"-Dreplay.soc={soc}", f"-Dreplay.sdk={sdk}", "-Dreplay.npu=true", *flags, "-XX:TieredStopAtLevel=1"]
        options += [f"-Dreplay.archive={tmp_path / 'app.zip'}"] if name == "simulated" else []
        ran = subprocess.run(
            ["java", *options, "-cp", path, "DriveCompiled", f"com.{name}.tinymodel20.TinyModel20", failing],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return dict(line.split(" ", 1) for line in ran.stdout.splitlines())

    best = drive("compiled", "SM8550")
    assert best["accelerator"] == "HTP"
    assert best["reasons"] == "[]"
    assert best["opened"] == "[NPU tiny_model_2_0/tiny_Qualcomm_SM8550.tflite]"
    assert best["result"] == "[1.5, -2.0]"
    assert best["runs"] == "4"
    other = drive("compiled", "SM7150")
    assert other["accelerator"] == "GPU"
    assert other["opened"] == "[GPU tiny_model_2_0/tiny.tflite]"
    assert "not compiled for SM7150" in other["reasons"]
    assert drive("compiled", "SM8650", "NPU GPU")["accelerator"] == "CPU"
    assert "does not name its chip" in drive("compiled", "SM8550", "", 30)["reasons"]
    none = drive("compiled", "SM8550", "NPU GPU CPU")
    assert "does not run on this device: HTP: no NPU; GPU: no GPU; CPU: no CPU" in none["error"]
    # The stand-in returns what the simulator did, from which the CPU differs by 1 of at most 1.5.
    simulated = drive("simulated", "SM8550")
    assert (float(simulated["largest"]), float(simulated["allowed"])) == (0.0, pytest.approx(0.02 * 2.0))
    unknown = drive("simulated", "SM8650")
    assert (float(unknown["largest"]), float(unknown["allowed"])) == (1.0, pytest.approx(0.02 * 1.5))
    # Without a compiled file LiteRT compiles on the phone, where it can.
    on_phone = drive("plain", "SM8550", "", 34, "-Dreplay.listed=true")
    assert (on_phone["accelerator"], on_phone["opened"]) == ("HTP", "[NPU tiny_model_2_0/tiny.tflite]")
    unlisted = drive("plain", "SM7150")
    assert (unlisted["accelerator"], "does not support the NPU" in unlisted["reasons"]) == ("GPU", True)
    bare = drive("plain", "SM8550", "", 34, "-Dreplay.listed=true", "-Dreplay.npu=false")
    assert (bare["accelerator"], "does not contain LiteRT's NPU runtime" in bare["reasons"]) == ("GPU", True)
    single = drive("single", "SM8550")
    assert (single["accelerator"], "half precision" in single["reasons"]) == ("CPU", True)
    # A model with state is opened again before and after the benchmark.
    stateful = drive("stateful", "SM8550")
    assert stateful["opened"] == "[" + ", ".join(["CPU tiny_model_2_0/tiny.tflite"] * 3) + "]"
    assert all(entry["left"] == "0" for entry in (best, other, none, on_phone, unlisted, bare, single, stateful))
