"""Arm Ethos-U as a package of its own: placement as Vela's, bundles, latency, errors; with the real compiler.

edgepack does not change for it: the package is installed with pip, and found through its entry points.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgepack.compat import check
from edgepack.compilers import CompileRequest, CompileResult, compare_placements
from edgepack.errors import CompilerError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.profiles import TargetProfile, load_profile
from edgepack.profiles.variants import resolve_variant

from .battery import agreement, cases
from .op_files import Case, Operand, model_of

#: Real models, and the number of ops that Vela 5.2 places on the CPU for Ethos-U55 and Ethos-U85.
MODELS = {
    "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite": (1, 0),
    "coral/keras_lstm_mnist_ptq.tflite": (0, 0),
    "coral/mobilenet_edgetpu_0.75_224_post_training_quant.tflite": (0, 0),
    "coral/mobilenet_v1_0.25_128_quant.tflite": (0, 0),
    "coral/mobilenet_v2_1.0_224_quant.tflite": (0, 0),
    "coral/posenet_mobilenet_v1_075_353_481_quant_decoder.tflite": (1, 1),
    "coral/split_concat.tflite": (0, 0),
    "mlperf-tiny/kws_reference_int8.tflite": (0, 0),
}

pytestmark = pytest.mark.slow


def edgepack(site: Path, *arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    """Run the command line with the package installed; return its JSON."""
    completed = subprocess.run(
        [sys.executable, "-c", "import sys; from edgepack.cli import main; sys.exit(main())", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    document: dict[str, Any] = json.loads(completed.stdout)
    return document


def profile_of(site: Path) -> TargetProfile:
    return load_profile(site / "edgepack_ethos_u")


def compiled(vela: ModuleType, site: Path, data: bytes, variant: str) -> CompileResult:
    """Compile a file for a variant."""
    rule = resolve_variant(profile_of(site), variant=variant).compiler
    assert rule is not None
    result: CompileResult = vela.VelaCompiler().compile(CompileRequest(data, "model", "int8", dict(rule.options)))
    assert result.status == "compiled"
    return result


def test_target_and_compiler_are_there_once_installed(site: Path) -> None:
    """Installing the package is enough: the target is listed, its profile is valid, doctor finds its compiler."""
    assert "ethos-u" in [entry["target"] for entry in edgepack(site, "targets", "list")["results"]]
    assert edgepack(site, "targets", "lint", str(site / "edgepack_ethos_u" / "profile.toml"))["ok"] is True
    assert '"name": "Vela"' in json.dumps(edgepack(site, "doctor"))


@pytest.mark.parametrize("variant", ["u55-128", "u85-256"])
@pytest.mark.parametrize("name", MODELS)
def test_placement_agrees_with_vela_op_for_op(
    vela: ModuleType, site: Path, models: Path, name: str, variant: str
) -> None:
    """On real models, which the op tables were not written from, the check places every op as Vela does."""
    data = (models / name).read_bytes()
    report = check(read_model(data), profile_of(site), variant=variant)
    result = compiled(vela, site, data, variant)
    assert result.placements is not None
    assert len(result.placements) == len(report.ops)
    assert [d.message for d in compare_placements(report.ops, result.placements)] == []
    host = [op.index for op in report.ops if op.placement is not Placement.ACCELERATOR]
    assert len(host) == MODELS[name][variant.startswith("u85")]
    assert result.warnings == ()
    (file,) = [read_model(file) for file in result.files.values()]
    assert {op.label for op in file.main.ops} - {vela.ACCELERATOR_OP} == {
        read_model(data).main.ops[index].label for index in host
    }


@pytest.mark.parametrize("variant", ["u55-128", "u85-256"])
def test_battery_agrees_with_vela(vela: ModuleType, site: Path, variant: str) -> None:
    """Every twentieth case of the battery: op, data type, rank and axis are placed as Vela places them."""
    rule = resolve_variant(profile_of(site), variant=variant).compiler
    assert rule is not None
    asked, differences = agreement(profile_of(site), variant, vela.VelaCompiler(), dict(rule.options), cases()[4::20])
    print(f"{variant}: {asked - len(differences)} of {asked} ops placed as Vela places them")
    assert asked >= 40
    # The uniqueness of indices is beyond the constraints of op tables.
    assert [line for line in differences if not line.startswith("SCATTER_ND")] == []


def test_every_variant_compiles_with_velas_latency(vela: ModuleType, site: Path, models: Path) -> None:
    """Each configuration with each memory mode is accepted by Vela, and more MACs or a faster clock take less time."""
    data = (models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()
    times: dict[str, float] = {}
    for variant in ("u55-32", "u55-256-sram-only", "u65-512-shared-sram", "u85-2048"):
        result = compiled(vela, site, data, variant)
        assert result.latency is not None
        document = result.to_json()["latency"]
        assert document["by"] == f"Vela {result.version}"
        assert document["kind"] == "estimate"
        assert document["details"]["memory_mode"] in document["text"]
        assert "error unknown" in document["text"]
        times[variant] = document["details"]["cycles"] / document["details"]["clock_hz"] * 1000
        assert document["figures"][0]["ms"] == pytest.approx(times[variant], rel=0.06)
    assert times["u55-32"] > times["u55-256-sram-only"] > times["u65-512-shared-sram"] > times["u85-2048"]


def test_ops_on_the_cpu_make_velas_estimate_a_lower_bound(vela: ModuleType, site: Path, models: Path) -> None:
    """Vela estimates the NPU only: with an op on the CPU the figure is a bound, and says so."""
    data = (models / "coral" / "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite").read_bytes()
    latency = compiled(vela, site, data, "u85-256").latency
    assert latency is not None
    assert (latency.kind, latency.host_ops) == ("lower-bound", 1)
    assert latency.text.startswith("at least about")


@pytest.mark.parametrize("variant", ["", "u85-512-sram-only"])
def test_build_makes_a_bundle_that_verifies(site: Path, models: Path, tmp_path: Path, variant: str) -> None:
    """An int8 file becomes a bundle with the package's template, reproducibly and without differences to report."""
    model = models / "mlperf-tiny" / "kws_reference_int8.tflite"
    options = ["--name", "kws", "--compile", "require", *(["--variant", variant] if variant else [])]
    outputs = ("one", "two") if variant else ("one",)
    for out in outputs:
        document = edgepack(site, "build", str(model), "-t", "ethos-u", "-o", out, *options, cwd=tmp_path)
    (result,) = document["results"]
    assert (result["compile"]["status"], result["compile"]["tool"]) == ("compiled", "Vela")
    assert result["compile"]["differences"] == []
    assert result["summary"]["accelerator"] == 13
    assert result["latency"] == result["compile"]["latency"]
    configuration, memory = ("u85-512", "Sram_Only") if variant else ("u55-128", "Shared_Sram")
    assert f"Ethos-{configuration.upper()} at 500 MHz with {memory}" in result["latency"]["text"]
    files = [
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in outputs
    ]
    assert files[0] == files[-1]
    bundle = Path("kws-ethos-u")
    program = files[0][bundle / "model" / "kws_vela.tflite"]
    assert [op.label for op in read_model(program).main.ops] == ["CUSTOM:ethos-u"]
    assert json.loads(files[0][bundle / "manifest.json"])["latency"] == result["latency"]
    source = files[0][bundle / "microcontroller" / "kws_model.cc"].decode()
    numbers = source.partition("= {")[2].partition("};")[0].replace("\n", "").replace(" ", "").strip(",").split(",")
    assert bytes(map(int, numbers)) == program
    assert edgepack(site, "verify", str(tmp_path / "one" / bundle))["ok"] is True


def test_broken_file_is_one_clear_error(vela: ModuleType, models: Path) -> None:
    """A file that Vela cannot read gives one error with its last line, not its traceback."""
    data = bytearray((models / "coral" / "split_concat.tflite").read_bytes())
    data[0:4] = b"\xff\xff\xff\x7f"
    with pytest.raises(CompilerError) as caught:
        vela.VelaCompiler().compile(CompileRequest(bytes(data), "model", "int8"))
    assert "Traceback" not in caught.value.message
    assert re.match(r"Vela (crashed with SIG\w+|ended with exit code 1): Failed to load", caught.value.message)
    assert caught.value.details["log_tail"]


def test_op_that_vela_refuses_is_named(vela: ModuleType, site: Path) -> None:
    """Vela refuses the whole file for one op of an unsupported type; error and check name the op and the type."""
    image = Operand((1, 8, 8, 4), "FLOAT32")
    data = model_of([Case("swish", "HARD_SWISH", (image,), (image,))])
    with pytest.raises(CompilerError) as caught:
        vela.VelaCompiler().compile(CompileRequest(data, "model", "int16x8"))
    assert "HARD_SWISH" in caught.value.message
    assert "FLOAT32" in caught.value.message
    assert "quantize" in caught.value.hint
    (op,) = check(read_model(data), profile_of(site)).ops
    assert "compile-fails" in [reason.code for reason in op.reasons]


def test_latency_of_an_unusual_summary(vela: ModuleType) -> None:
    """Without a usable estimate in Vela's summary there is none, and no error."""
    head = "accelerator_configuration,memory_mode,system_config,core_clock,inference_time,cycles_total,cycles_npu\n"
    row = "Ethos_U55_128,Sram_Only,System,500000000.0,0.001,500000,"
    assert vela.latency_of(head + row, "Vela", 0).figures[0].ms == pytest.approx(1.0)
    for text in ("", head, head + row.replace("0.001", "0"), head + row.replace("0.001", "fast"), "a,b\n1,2\n"):
        assert vela.latency_of(text, "Vela", 0) is None
