"""A third party's package adds a target and a compiler without any change in edgepack.

The package in tests/plugin is installed with pip, and the tests run the real compiler, Arm's Vela.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgepack.compat import check
from edgepack.compilers import CompileRequest, compare_placements
from edgepack.errors import CompilerError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.profiles import load_profile

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin" / "edgepack-ethos-u55"

#: Real models, and the number of ops that Vela 5.2 places on the CPU.
MODELS = {
    "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite": 1,
    "coral/keras_lstm_mnist_ptq.tflite": 0,
    "coral/mobilenet_edgetpu_0.75_224_post_training_quant.tflite": 0,
    "coral/mobilenet_v1_0.25_128_quant.tflite": 0,
    "coral/mobilenet_v2_1.0_224_quant.tflite": 0,
    "coral/posenet_mobilenet_v1_075_353_481_quant_decoder.tflite": 1,
    "coral/split_concat.tflite": 0,
    "mlperf-tiny/kws_reference_int8.tflite": 0,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin as pip installs it, with its metadata."""
    for module in ("ethosu.vela", "hatchling", "pip"):
        pytest.importorskip(module, reason=f"{module} is not installed: the plugin's own requirement or its build")
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    completed = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(folder), str(source)],
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return folder


@pytest.fixture
def vela(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin's compiler module, imported from the installation."""
    monkeypatch.syspath_prepend(str(site))
    module = importlib.import_module("edgepack_ethos_u55.compiler")
    assert Path(str(module.__file__)).is_relative_to(site)
    yield module
    for name in [name for name in sys.modules if name.startswith("edgepack_ethos_u55")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with probe.tflite and float_op.tflite (tests/plugin/make_probe.py)."""
    folder = tmp_path_factory.mktemp("probes")
    script = ROOT / "tests" / "plugin" / "make_probe.py"
    completed = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return folder


def edgepack(site: Path, *arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    """Run the command line with the plugin installed; return its JSON."""
    completed = subprocess.run(
        [sys.executable, "-c", "import sys; from edgepack.cli import main; sys.exit(main())", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    document: dict[str, Any] = json.loads(completed.stdout)
    return document


def agree(vela: ModuleType, site: Path, data: bytes) -> tuple[list[int], Any]:
    """Compare the check with Vela op by op; return the indices of the host ops and Vela's result."""
    profile = load_profile(site / "edgepack_ethos_u55")
    assert profile.compiler is not None
    report = check(read_model(data), profile)
    result = vela.VelaCompiler().compile(CompileRequest(data, "model", "int8", dict(profile.compiler.options)))
    assert result.status == "compiled"
    assert result.placements is not None
    assert len(result.placements) == len(report.ops)
    assert [d.message for d in compare_placements(report.ops, result.placements)] == []
    return [op.index for op in report.ops if op.placement is not Placement.ACCELERATOR], result


def test_target_and_compiler_are_there_once_installed(site: Path) -> None:
    """Installing the package is enough: the target is listed, its profile is valid, doctor finds its compiler."""
    listed = edgepack(site, "targets", "list")
    assert "ethos-u55" in json.dumps(listed["results"])
    assert edgepack(site, "targets", "lint", str(site / "edgepack_ethos_u55" / "profile.toml"))["ok"] is True
    doctor = json.dumps(edgepack(site, "doctor"))
    assert '"name": "Vela"' in doctor


@pytest.mark.parametrize("name", MODELS)
def test_placement_agrees_with_vela_op_for_op(vela: ModuleType, site: Path, shared_models: Path, name: str) -> None:
    """On real models the check places every op as Vela's report and file do."""
    data = (shared_models / name).read_bytes()
    host, result = agree(vela, site, data)
    assert len(host) == MODELS[name]
    assert result.warnings == ()
    assert result.figures["cpu_operators"] == len(host)
    (compiled,) = [read_model(file) for file in result.files.values()]
    left = {op.label for op in compiled.main.ops} - {vela.ACCELERATOR_OP}
    assert left == {read_model(data).main.ops[index].label for index in host}


def test_placement_agrees_on_both_sides_of_the_limits(vela: ModuleType, site: Path, probes: Path) -> None:
    """Kernels, strides, factors and axes on both sides of the NPU's limits are placed as Vela places them."""
    data = (probes / "probe.tflite").read_bytes()
    host, result = agree(vela, site, data)
    assert result.warnings == ()
    ops = read_model(data).main.ops
    assert {ops[index].label for index in host} >= {
        "ARG_MAX", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "GATHER", "MEAN", "RESIZE_BILINEAR", "REVERSE_V2",
        "TRANSPOSE_CONV",
    }  # fmt: skip
    assert len(ops) - len(host) >= 20


def test_build_makes_a_bundle_that_verifies(site: Path, shared_models: Path, tmp_path: Path) -> None:
    """An int8 file becomes a bundle with the plugin's template, reproducibly and without differences to report."""
    model = shared_models / "mlperf-tiny" / "kws_reference_int8.tflite"
    for out in ("one", "two"):
        document = edgepack(
            site,
            "build",
            str(model),
            "-t",
            "ethos-u55",
            "--name",
            "kws",
            "-o",
            out,
            "--compile",
            "require",
            cwd=tmp_path,
        )
    (result,) = document["results"]
    assert result["compile"]["status"] == "compiled"
    assert result["compile"]["tool"] == "Vela"
    assert result["compile"]["differences"] == []
    assert result["summary"]["accelerator"] == 13
    one, two = (
        {
            path.relative_to(tmp_path / out): path.read_bytes()
            for path in sorted((tmp_path / out).rglob("*"))
            if path.is_file()
        }
        for out in ("one", "two")
    )
    assert one == two
    bundle = Path("kws-ethos-u55")
    compiled = one[bundle / "model" / "kws_vela.tflite"]
    assert [op.label for op in read_model(compiled).main.ops] == ["CUSTOM:ethos-u"]
    assert one[bundle / "model" / "kws.tflite"]
    source = one[bundle / "microcontroller" / "kws_model.cc"].decode()
    numbers = source.partition("= {")[2].partition("};")[0].replace("\n", "").replace(" ", "").strip(",").split(",")
    assert bytes(map(int, numbers)) == compiled
    assert edgepack(site, "verify", str(tmp_path / "two" / bundle))["ok"] is True


def test_broken_file_is_one_clear_error(vela: ModuleType, shared_models: Path) -> None:
    """A file that Vela cannot read gives one error with its last line, not its traceback."""
    data = bytearray((shared_models / "coral" / "split_concat.tflite").read_bytes())
    data[0:4] = b"\xff\xff\xff\x7f"
    with pytest.raises(CompilerError) as caught:
        vela.VelaCompiler().compile(CompileRequest(bytes(data), "model", "int8"))
    assert "Traceback" not in caught.value.message
    assert re.match(r"Vela (crashed with SIG\w+|ended with exit code 1): Failed to load", caught.value.message)
    assert caught.value.details["log_tail"]


def test_op_that_vela_refuses_is_named(vela: ModuleType, probes: Path) -> None:
    """Vela refuses the whole file for one op of an unsupported type; the error names the op and the type."""
    data = (probes / "float_op.tflite").read_bytes()
    with pytest.raises(CompilerError) as caught:
        vela.VelaCompiler().compile(CompileRequest(data, "model", "int16x8"))
    assert "HARD_SWISH" in caught.value.message
    assert "FLOAT32" in caught.value.message
    assert "quantize" in caught.value.hint


def _edge_files() -> dict[str, bytes]:
    """One-op files on both sides of Vela's limits on padding, aligned corners, slices and softmax."""
    sys.path.insert(0, str(ROOT / "tests" / "compat"))
    import numpy as np
    from oneop_files import act, const, one_op_file

    def image(*shape: int) -> dict[str, Any]:
        return act(shape, "INT8")

    def ints(*values: int) -> dict[str, Any]:
        return const(np.array(values, np.int32), 1)

    weights, bias = const(np.ones((6, 4, 4, 4), np.int8)), const(np.zeros(6, np.int32), 0.001)
    conv = {"strideH": 4, "strideW": 4, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0}
    files = {}
    for size, out in ((8, 2), (9, 3)):
        inputs = [image(1, size, size, 4), weights, bias]
        files[f"conv-same-{size}"] = one_op_file("CONV_2D", inputs, [image(1, out, out, 6)], conv, "Conv2DOptions", 3)
        pool = {"strideH": 4, "strideW": 4, "filterHeight": 4, "filterWidth": 4, "padding": 0}
        outputs = [image(1, out, out, 4)]
        files[f"pool-same-{size}"] = one_op_file("MAX_POOL_2D", inputs[:1], outputs, pool, "Pool2DOptions", 2)
    for size in (24, 25):
        pool = {"strideH": 12, "strideW": 12, "filterHeight": 12, "filterWidth": 12, "padding": 0}
        out = -(-size // 12)
        outputs = [image(1, out, out, 4)]
        files[f"mean-same-{size}"] = one_op_file(
            "AVERAGE_POOL_2D", [image(1, size, size, 4)], outputs, pool, "Pool2DOptions", 2
        )
    for op, table in (
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    ):
        for factor in (2, 3, 4, 8):
            size = 7 * factor + 1
            inputs, outputs = [image(1, 8, 8, 4), ints(size, size)], [image(1, size, size, 4)]
            files[f"{op}-{factor}"] = one_op_file(op, inputs, outputs, {"alignCorners": True}, table, 2)
    for name, begin, end, strides, out_shape in (
        ("rows", (0, 0, 0, 0), (1, 8, 8, 4), (1, 2, 2, 1), (1, 4, 4, 4)),
        ("channels", (0, 0, 0, 0), (1, 8, 8, 4), (1, 1, 1, 2), (1, 8, 8, 2)),
        ("backwards", (0, 7, 0, 0), (1, 0, 8, 4), (1, -1, 1, 1), (1, 7, 8, 4)),
    ):
        inputs = [image(1, 8, 8, 4), ints(*begin), ints(*end), ints(*strides)]
        files[name] = one_op_file("STRIDED_SLICE", inputs, [image(*out_shape)], {}, "StridedSliceOptions", 2)
    for size in (8, 300):
        shape = (1, size, size, 4)
        outputs = [act(shape, "INT8", 1 / 256, -128)]
        files[f"softmax-{size}"] = one_op_file("SOFTMAX", [image(*shape)], outputs, {"beta": 1.0}, "SoftmaxOptions", 2)
    return files


def test_limits_are_velas_own(vela: ModuleType, site: Path) -> None:
    """On both sides of each limit the check places the op as Vela does."""
    placed = {name: not agree(vela, site, data)[0] for name, data in _edge_files().items()}
    refused = {"conv-same-9", "pool-same-9", "mean-same-25", "channels", "backwards", "softmax-300"}
    refused |= {"RESIZE_BILINEAR-3", "RESIZE_NEAREST_NEIGHBOR-3"}
    assert {name for name, accelerated in placed.items() if not accelerated} == refused
