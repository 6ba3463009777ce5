"""Files compiled ahead of time for a chip: the Kotlin loader runs them with LiteRT's CompiledModel, here a stand-in."""

import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_specs import tiny_spec, write_tree
from kotlin_tools import Kotlin

from edgepack.bundle.android import compiled_for, compiled_model_problem, dependencies, runs_compiled
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, Golden, GoldenCase, ModelFile, SimulatedGolden, TensorSpec

FILES = (
    ModelFile("host", "tiny.tflite", b"host"),
    ModelFile("compiled", "tiny_Qualcomm_SM8650.tflite", b"for v75"),
    ModelFile("compiled", "tiny_Qualcomm_SM8550.tflite", b"for v73"),
)
TYPES = ("FLOAT32", "INT8", "INT32", "BOOL")


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
    [source] = [files[p].decode() for p in files if p.endswith("TinyModel20.kt")]
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
    [source] = [files[p].decode() for p in files if p.endswith("TinyModel20.kt")]
    assert '"tiny_model_2_0/tiny_Qualcomm_SM8550.tflite"' in source


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"language": "java"}, "only the Kotlin loader"),
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


@pytest.mark.slow
def test_it_compiles_and_runs_on_the_stand_in(kotlin: Kotlin, standins: Path, tmp_path: Path) -> None:
    """HTP on a chip with a file, else GPU, else CPU, each with the reasons; whatever happens, everything is closed."""
    every = tuple(TensorSpec(dtype, dtype, (1, 2), dtype) for dtype in TYPES)
    quantized = (TensorSpec("q", "q", (1, 2), "INT8", 0.1, 3, ("a", "b")),)
    sources = []
    for number, spec in enumerate(
        (
            compiled_spec(),
            compiled_spec(inputs=every, outputs=every),
            compiled_spec(inputs=quantized, outputs=quantized),
            simulated_spec(),
        )
    ):
        files = render(replace(spec, android_package=f"com.compiled{number}", single_precision=number == 2))
        tree = write_tree({p: d for p, d in files.items() if p.endswith(".kt")}, tmp_path / str(number))
        sources += sorted(tree.rglob("*.kt"))
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for name, data in files.items():
            if "/assets/" in name:
                archive.writestr(f"assets/{name.partition('/assets/')[2]}", data)
    done = kotlin.compile(sources, tmp_path / "classes")
    assert done.returncode == 0, done.stderr

    def drive(soc: str, failing: str, sdk: int = 34, *, number: int = 0) -> dict[str, str]:
        jars = [jar for jar in kotlin.classpath if "android-all" not in jar.name]
        path = os.pathsep.join(map(str, [standins, tmp_path / "classes", kotlin.stdlib, *jars]))
        flags = [f"-Dreplay.soc={soc}", f"-Dreplay.sdk={sdk}", "-XX:TieredStopAtLevel=1"]
        flags += [f"-Dreplay.archive={tmp_path / 'app.zip'}"] if number else []
        ran = subprocess.run(
            ["java", *flags, "-cp", path, "DriveCompiled", f"com.compiled{number}.tinymodel20.TinyModel20", failing],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return dict(line.split(" ", 1) for line in ran.stdout.splitlines())

    best = drive("SM8550", "")
    assert best["accelerator"] == "HTP"
    assert best["reasons"] == "[]"
    assert best["opened"] == "[NPU tiny_model_2_0/tiny_Qualcomm_SM8550.tflite]"
    assert best["result"] == "[1.5, -2.0]"
    assert best["runs"] == "4"
    other = drive("SM7150", "")
    assert other["accelerator"] == "GPU"
    assert other["opened"] == "[GPU tiny_model_2_0/tiny.tflite]"
    assert "not compiled for SM7150" in other["reasons"]
    assert drive("SM8650", "NPU GPU")["accelerator"] == "CPU"
    assert "does not name its chip" in drive("SM8550", "", 30)["reasons"]
    none = drive("SM8550", "NPU GPU CPU")
    assert "does not run on this device: HTP: no NPU; GPU: no GPU; CPU: no CPU" in none["error"]
    assert all(entry["left"] == "0" for entry in (best, other, none))
    # The stand-in returns what the simulator did, from which the CPU differs by 1 of at most 1.5.
    simulated = drive("SM8550", "", number=3)
    assert (float(simulated["largest"]), float(simulated["allowed"])) == (0.0, pytest.approx(0.02 * 2.0))
    unknown = drive("SM8650", "", number=3)
    assert (float(unknown["largest"]), float(unknown["allowed"])) == (1.0, pytest.approx(0.02 * 1.5))
