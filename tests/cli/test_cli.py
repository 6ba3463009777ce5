"""The command line: arguments in; results, JSON documents and exit codes out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.cli.main import run as run_in_process

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / "tests" / "data" / "digits_float.tflite"
EXAMPLES = REPOSITORY / "examples" / "digits"

pytestmark = pytest.mark.usefixtures("warm_cache")


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run edgepack in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "edgepack", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80", **environment},
    )


def document(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the one JSON document on stdout."""
    parsed = json.loads(done.stdout)
    assert parsed["schema"] == 1
    return parsed


def build(out: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return run(
        "build", DIGITS, "--name", "digits", "--samples", EXAMPLES / "samples.npz", "--eval", EXAMPLES / "eval.npz",
        "--labels", EXAMPLES / "labels.txt", "-o", out, *more,
    )  # fmt: skip


@pytest.mark.slow
def test_build_for_all_targets_without_tensorflow(tmp_path: Path) -> None:
    """All four bundles are built from a float .tflite and verify; the JSON document has the documented fields."""
    done = build(tmp_path, "-t", "all", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {entry["target"]: entry for entry in document(done)["results"]}
    assert {"cpu", "android-gpu", "edgetpu", "hexagon"} <= set(results)
    for target in ("cpu", "android-gpu", "edgetpu", "hexagon"):
        entry = results[target]
        assert entry["ok"], entry["error"]
        assert entry["scheme"] == ("float16" if target == "android-gpu" else "int8")
        assert entry["model"]["bytes"] < 0.6 * entry["float_bytes"]
        assert entry["summary"]["total"] == entry["summary"]["accelerator"] + entry["summary"]["host"]
        assert entry["quality"]["top1"] >= entry["quality"]["top1_float"] - 1
        stages = {"convert", "calibrate", "quantize", "check", "compile", "simulate", "measure", "bundle"}
        assert set(entry["seconds"]) == stages
        checked = run("verify", entry["bundle"], "--json")
        assert checked.returncode == 0, checked.stdout
        assert document(checked)["results"][0]["golden"]


@pytest.mark.slow
def test_the_table_fits_eighty_columns(tmp_path: Path) -> None:
    """Text output is at most 80 columns wide, gives the reason for each scheme and the path of each bundle."""
    done = build(tmp_path / "o", "-t", "cpu", "-t", "edgetpu")
    assert done.returncode == 0, done.stderr
    for line in (done.stdout + done.stderr).splitlines():
        assert len(line) <= 80 or str(tmp_path) in line, line
    assert "digits-edgetpu" in done.stdout
    assert "cpu: " in done.stdout
    assert "not compiled" in done.stderr


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Bundles contain no time, path or dictionary order: built with or without the cache, their bytes are equal."""
    assert build(tmp_path / "a", "-t", "all").returncode == 0
    assert build(tmp_path / "b", "-t", "all", "--no-cache").returncode == 0
    first = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    for name, data in first.items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.slow
def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    """--dry-run runs every stage but writes nothing."""
    done = build(tmp_path / "o", "-t", "cpu", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_an_existing_bundle_needs_force(tmp_path: Path) -> None:
    """A bundle is replaced only with --force; a folder that is not a bundle is never replaced."""
    assert build(tmp_path, "-t", "cpu").returncode == 0
    assert build(tmp_path, "-t", "cpu").returncode == 7
    assert build(tmp_path, "-t", "cpu", "--force").returncode == 0
    (tmp_path / "other-cpu").mkdir()
    (tmp_path / "other-cpu" / "thesis.txt").write_text("years of work")
    done = build(tmp_path, "-t", "cpu", "--force", "--name", "other")
    assert done.returncode == 7
    assert (tmp_path / "other-cpu" / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_max_drop_is_held(tmp_path: Path) -> None:
    """A model that loses more than --max-drop ends with exit code 8 and writes no bundle."""
    data = np.load(EXAMPLES / "eval.npz")
    x = data[data.files[0]]
    # Calibration on black images only clips every real image.
    np.savez(tmp_path / "black.npz", x=np.zeros((30, *x.shape[1:]), np.float32))
    done = run(
        "build", DIGITS, "-t", "edgetpu", "--samples", tmp_path / "black.npz", "--eval", EXAMPLES / "eval.npz",
        "--max-drop", "1", "-o", tmp_path / "o", "--json",
    )  # fmt: skip
    assert done.returncode == 8, done.stdout + done.stderr
    error = document(done)["error"]
    assert (error["kind"], error["code"]) == ("accuracy", 8)
    assert not (tmp_path / "o").exists()
    without = run("build", DIGITS, "-t", "cpu", "--max-drop", "1", "-o", tmp_path / "o")
    assert without.returncode == 8
    assert "--eval" in without.stderr


def test_int8_without_samples_says_how_many_and_of_what_form(tmp_path: Path) -> None:
    """The Edge TPU supports int8 only: without samples the error names their forms; random numbers need a flag."""
    done = run("build", DIGITS, "-t", "edgetpu", "-o", tmp_path)
    assert done.returncode == 2
    assert "100" in done.stderr
    assert ".npz" in done.stderr
    done = run("build", DIGITS, "-t", "edgetpu", "-o", tmp_path, "--random-calibration")
    assert done.returncode == 0, done.stderr
    assert "random" in done.stderr
    manifest = json.loads((tmp_path / "digits_float-edgetpu" / "manifest.json").read_text())
    assert manifest["calibration"]["random"] is True
    assert "random" in (tmp_path / "digits_float-edgetpu" / "README.md").read_text()


@pytest.mark.parametrize("target", ["cpu", "android-gpu"])
def test_without_data_the_schemes_that_need_none_are_taken(tmp_path: Path, target: str) -> None:
    """A target that supports schemes without data is built without data."""
    done = run("build", DIGITS, "-t", target, "-o", tmp_path, "--json")
    assert done.returncode == 0, done.stdout
    entry = document(done)["results"][0]
    assert entry["scheme"] in {"dynamic-range", "float16"}
    assert entry["quality"] is None


def test_a_scheme_the_target_refuses_lists_those_it_takes(tmp_path: Path) -> None:
    """float16 on the Edge TPU is an error that lists the supported schemes and the data that each needs."""
    done = run("build", DIGITS, "-t", "edgetpu", "--scheme", "float16", "-o", tmp_path)
    assert done.returncode == 2
    assert "int8" in done.stderr
    assert "samples" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["build", DIGITS, "-t", "edgtpu"], 2, "edgetpu"),
        (["build", DIGITS], 2, "-t TARGET"),
        (["build", "missing.tflite", "-t", "cpu"], 2, "missing.tflite"),
        (["build", DIGITS, "-t", "cpu", "--scheme", "int9"], 2, "int9"),
        (["build", DIGITS, "-t", "cpu", "--samples", "missing.npz"], 2, "missing.npz"),
        (["build", DIGITS, "-t", "cpu", "--compile", "maybe"], 2, "maybe"),
        (["build", DIGITS, "-t", "cpu", "--input-shape", "x"], 2, "NAME=1,224,224,3"),
        (["build", DIGITS, "-t", "cpu", "--nonsense"], 2, "--nonsense"),
        (["check", REPOSITORY / "README.md", "-t", "cpu"], 3, "README.md"),
        (["check", DIGITS, "-t", "edgetpu", "--variant", "nothing"], 2, "nothing"),
        (["verify", REPOSITORY / "docs"], 7, "manifest.json"),
        (["inspect", REPOSITORY / "README.md"], 3, "README.md"),
        (["targets", "show", "edgetpus"], 2, "edgetpu"),
        (["build", DIGITS, "-t", "edgetpu", "--compile", "require", "--random-calibration", "-o", "nowhere"], 5, "EDGEPACK_EDGETPU_COMPILER"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_bad_input_is_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str | Path],
    code: int,
    text: str,
    as_json: bool,
) -> None:
    """An error is one message on stderr or one JSON document, with the documented exit code and no traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", "")
    exit_code = run_in_process([*map(str, arguments), *(["--json"] if as_json else [])])
    captured = capsys.readouterr()
    assert exit_code == code, captured
    assert text in " ".join((captured.out if as_json else captured.err).split())
    assert "Traceback" not in captured.out + captured.err
    if as_json:
        assert json.loads(captured.out)["ok"] is False
        assert json.loads(captured.out)["error"]["code"] == code
    else:
        assert "error: " in captured.err
    assert list(tmp_path.iterdir()) == []


def test_check_answers_for_a_float_model(tmp_path: Path) -> None:
    """A float .tflite is checked as the file that build would write; the JSON has a placement for every op."""
    done = run("check", DIGITS, "-t", "edgetpu", "--json")
    assert done.returncode == 0, done.stdout
    entry = document(done)["results"][0]
    assert entry["planned"] == "int8"
    assert [op["index"] for op in entry["ops"]] == list(range(entry["summary"]["total"]))
    assert {op["placement"] for op in entry["ops"]} <= {"accelerator", "host", "unsupported"}


def test_require_full_gates(shared_models: Path) -> None:
    """A model with ops on the host ends with exit code 3 under --require-full and passes without it."""
    model = shared_models / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    assert run("check", model, "-t", "edgetpu").returncode == 0
    done = run("check", model, "-t", "edgetpu", "--require-full", "--json")
    assert done.returncode == 3
    assert document(done)["results"][0]["summary"]["host"] == 7


def test_a_quantized_file_goes_straight_to_the_bundle(tmp_path: Path, shared_models: Path) -> None:
    """Coral's uint8 files are checked and bundled unchanged; a scheme that needs the float model is refused."""
    model = shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    done = run("build", model, "-t", "edgetpu", "-o", tmp_path, "--json")
    assert done.returncode == 0, done.stdout
    entry = document(done)["results"][0]
    assert entry["summary"] == {"total": 31, "accelerator": 31, "host": 0, "unsupported": 0, "partitions": 1}
    shipped = (
        tmp_path / "mobilenet_v1_0_25_128_quant-edgetpu" / "model" / "mobilenet_v1_0_25_128_quant.tflite"
    ).read_bytes()
    assert shipped == model.read_bytes()
    refused = run("build", model, "-t", "cpu", "--scheme", "float16", "-o", tmp_path)
    assert refused.returncode == 4
    assert "float model" in refused.stderr


@pytest.mark.parametrize(
    "command", [["targets", "list"], ["targets", "show", "hexagon"], ["doctor"], ["cache", "show"]]
)
def test_commands_that_look(command: list[str]) -> None:
    """Listings work as text and as one JSON document."""
    assert run(*command).returncode == 0
    done = run(*command, "--json")
    assert done.returncode == 0
    assert document(done)["ok"] is True


def test_inspect_shows_what_the_app_needs(tmp_path: Path) -> None:
    """Inspect prints the scale and zero point of inputs and outputs, for a model and for a bundle."""
    assert build(tmp_path, "-t", "edgetpu").returncode == 0
    done = run("inspect", tmp_path / "digits-edgetpu", "--json")
    entry = document(done)["results"][0]
    assert entry["scheme"] == "int8"
    assert entry["inputs"][0]["scale"] > 0
    assert "CONV_2D" in run("inspect", DIGITS).stdout


def test_lint_reports_a_bad_profile(tmp_path: Path) -> None:
    """Every fault of a profile is reported at once, with exit code 2."""
    (tmp_path / "profile.toml").write_text('schema = 1\nid = "x"\nnonsense = true\n')
    done = run("targets", "lint", tmp_path / "profile.toml")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_cache_shows_and_clears(tmp_path: Path) -> None:
    """Cache show lists the entries of a build, and cache clear removes them."""
    environment = {"EDGEPACK_CACHE_DIR": str(tmp_path / "cache")}
    run("build", DIGITS, "-t", "android-gpu", "-o", tmp_path, **environment)
    assert document(run("cache", "show", "--json", **environment))["results"]
    assert run("cache", "clear", **environment).returncode == 0
    assert document(run("cache", "show", "--json", **environment))["results"] == []


def test_sarif_for_a_code_host(tmp_path: Path, shared_models: Path) -> None:
    """Check --sarif writes findings with rules; a folder that does not exist is refused."""
    model = shared_models / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    done = run("check", model, "-t", "edgetpu", "--sarif", tmp_path / "findings.sarif")
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "findings.sarif").read_text())
    assert log["version"] == "2.1.0"
    assert {result["ruleId"] for result in log["runs"][0]["results"]} >= {"op-not-supported"}
    assert run("check", model, "-t", "edgetpu", "--sarif", tmp_path / "no" / "findings.sarif").returncode == 2


@pytest.mark.slow
def test_effort_is_said(tmp_path: Path) -> None:
    """--effort medium improves int8 and lists the steps kept, also in the manifest; an unknown effort is refused."""
    done = build(tmp_path, "-t", "edgetpu", "--effort", "medium", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = document(done)["results"]
    kept = [step["step"] for step in entry["improvements"]["steps"] if step["kept"]]
    assert kept
    assert entry["quality"]["top1"] >= entry["quality"]["top1_float"] - 0.5
    manifest = json.loads((tmp_path / "digits-edgetpu" / "manifest.json").read_text())
    assert manifest["calibration"]["method"] == f"effort medium: {', '.join(kept)}"
    assert build(tmp_path, "-t", "edgetpu", "--effort", "heroic").returncode == 2


@pytest.mark.slow
def test_a_cpu_bundle_for_android(tmp_path: Path) -> None:
    """--platform android gives the cpu target an Android module in the requested language."""
    done = build(tmp_path, "-t", "cpu", "--platform", "android", "--language", "java", "--package", "org.acme")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "digits-cpu" / "android").rglob("Digits.java")] == ["Digits.java"]
    assert run("verify", tmp_path / "digits-cpu").returncode == 0
