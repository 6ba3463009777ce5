"""Calls of the library on a .tflite: results, messages, progress, threads, programs without a main guard."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgepack
from edgepack.cli.main import run

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "tests" / "data" / "digits_float.tflite"
SAMPLES = REPOSITORY / "examples" / "digits" / "eval.npz"


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON document that a command prints."""
    run([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def without_times(document: Any) -> Any:
    return {**document, "results": [{**entry, "seconds": None} for entry in document["results"]]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> edgepack.BuildResult:
    """A build of a model in memory, with labelled samples in memory, for two targets."""
    with np.load(SAMPLES) as stored:
        labelled = stored["x"][:60], stored["y"][:60]
    out = tmp_path_factory.mktemp("bundles")
    return edgepack.build(
        MODEL.read_bytes(), ["cpu", "android-gpu"], eval=labelled, scheme="float16", out=out, name="digits",
        labels=[f"digit {number}" for number in range(10)],
    )  # fmt: skip


def test_a_build_from_memory(built: edgepack.BuildResult) -> None:
    """A .tflite and arrays in memory give bundles that verify, with the measured accuracy and the class names."""
    built.raise_for_error()
    assert built.ok and [entry.target for entry in built] == ["cpu", "android-gpu"]
    entry = built["cpu"]
    assert entry.quality is not None and entry.quality.samples == 60 and entry.quality.top1 is not None
    assert entry.bundle is not None and entry.report is not None
    verified = edgepack.verify(entry.bundle)
    assert verified.ok, verified.problems
    manifest = verified.manifest
    assert manifest["outputs"][0]["labels"][3] == "digit 3"
    assert edgepack.inspect(entry.bundle).inputs[0]["shape"] == [1, 8, 8, 1]
    assert "cpu: float16" in repr(entry) and len(repr(built)) < 120
    assert json.loads(json.dumps(built.to_json()))["results"][1]["target"] == "android-gpu"


def test_several_targets_have_no_single_value(built: edgepack.BuildResult) -> None:
    """With several targets, `.bundle` is an error that says how to get one of them."""
    with pytest.raises(edgepack.EdgepackError, match="2 targets have 2 values") as caught:
        _ = built.bundle
    assert "results['cpu'].bundle" in caught.value.hint
    with pytest.raises(edgepack.EdgepackError, match="no results for target 'edgetpu'"):
        built["edgetpu"]


def test_html_escapes_what_comes_from_the_model(built: edgepack.BuildResult) -> None:
    """A notebook shows the picture of both files, and no text of the model becomes a tag."""
    html = built._repr_html_()
    assert "<svg" in html and "<script" not in html
    from edgepack.api.html import render

    hostile = "<img src=x onerror=alert(1)>"
    page = render(hostile, (hostile,), ((hostile,),), notes=(hostile,))
    assert "<img" not in page and page.count("&lt;img") == 4


def test_documents_are_those_of_the_command_line(
    built: edgepack.BuildResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """`to_json` returns what `--json` prints."""
    text = str(MODEL)
    assert edgepack.check(text, ["edgetpu", "cpu"]).to_json() == command(
        capsys, "check", text, "-t", "edgetpu", "-t", "cpu"
    )
    assert edgepack.inspect(text).to_json() == command(capsys, "inspect", text)
    build = edgepack.build(text, "cpu", scheme="float32", dry_run=True).to_json()
    printed = command(capsys, "build", text, "-t", "cpu", "--scheme", "float32", "--dry-run")
    assert without_times(build) == without_times(printed)
    bundle = str(built["cpu"].bundle)
    assert edgepack.verify(bundle).to_json() == command(capsys, "verify", bundle)


def test_chips_are_part_of_the_target() -> None:
    """`hexagon@CHIP` may be given several times, and the order of the results is that of the request."""
    result = edgepack.check(MODEL, ["hexagon@SM8550", "cpu", "hexagon@SM8650", "edgetpu"])
    assert [entry.name for entry in result] == ["hexagon@SM8550", "cpu", "hexagon@SM8650", "edgetpu"]
    assert result["hexagon@SM8650"].report is not None
    assert edgepack.check(MODEL, "hexagon@SM8550").report is not None
    for wrong in ("cpu@SM8550", "hexagon@", "all@SM8550", "nothing@SM8550"):
        with pytest.raises(edgepack.EdgepackError) as caught:
            edgepack.check(MODEL, wrong)
        assert caught.value.hint, wrong


MISTAKES: dict[str, dict[str, Any]] = {
    "effort": {"effort": "extreme"},
    "scheme": {"scheme": "int4"},
    "ranges": {"ranges": "widest"},
    "compile": {"compile": "maybe"},
    "size": {"max_size": "large"},
    "count": {"calibration_samples": 0},
    "number": {"epochs": "many"},
    "drop": {"max_drop": float("nan")},
    "shape": {"input_shape": {"x": (1, -1)}},
    "memory": {"memory_limit": "much"},
    "target": {"targets": "edgetpuu"},
    "no target": {"targets": []},
    "no file": {"model": "missing.keras"},
    "no model": {"model": object()},
    "labels": {"labels": ["a\nb"]},
    "both": {"options": edgepack.BuildOptions(), "effort": "high"},
    "array beside options": {"options": edgepack.BuildOptions(), "samples": np.zeros((3, 8, 8, 1))},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_an_error_with_a_hint(mistake: str, tmp_path: Path) -> None:
    """An unknown value is an EdgepackError before any work, its hint says what to do, and nothing is written."""
    arguments = {"model": MODEL, "targets": "cpu", "out": tmp_path / "out", **MISTAKES[mistake]}
    if "options" in arguments:
        del arguments["out"]
    with pytest.raises(edgepack.EdgepackError) as caught:
        edgepack.build(**arguments)
    assert caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_messages_name_the_model_and_no_temporary_file() -> None:
    """A model that existed in memory only is named by its name."""
    with pytest.raises(edgepack.EdgepackError) as caught:
        edgepack.build(b"TFL3 is not enough", "cpu", name="mine", dry_run=True)
    assert "mine" in caught.value.message and "edgepack-run" not in caught.value.message


def test_options_of_earlier_versions_work() -> None:
    """A build with BuildOptions in one object gives the file that keywords give."""
    options = edgepack.BuildOptions(scheme="float16", dry_run=True)  # type: ignore[arg-type]
    one = edgepack.build(MODEL, ["cpu"], options)
    assert (
        one.error is None and one.results[0].model == edgepack.build(MODEL, "cpu", scheme="float16", dry_run=True).model
    )


def test_progress_goes_to_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    """A function gets sentences; without one nothing is printed where nobody watches."""
    messages: list[str] = []
    edgepack.build(
        MODEL, "cpu", scheme="float16", dry_run=True, samples=np.zeros((30, 8, 8, 1)), progress=messages.append
    )
    edgepack.build(MODEL, "cpu", scheme="float16", dry_run=True)
    assert any("measuring" in message for message in messages)
    assert capfd.readouterr() == ("", "")


def test_an_exception_of_the_callback_ends_the_call(tmp_path: Path) -> None:
    """A program can stop a build from its callback, as Ctrl-C does: nothing half-written stays."""

    def stop(message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgepack.build(MODEL, "cpu", scheme="float16", samples=np.zeros((30, 8, 8, 1)), out=tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_calls_in_threads() -> None:
    """Threads build at the same time, and each gets its own result."""
    results: dict[str, Any] = {}

    def work(scheme: str) -> None:
        results[scheme] = edgepack.build(MODEL, "cpu", scheme=scheme, dry_run=True)

    threads = [threading.Thread(target=work, args=(scheme,)) for scheme in ("float32", "float16", "dynamic-range")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {scheme: result.scheme for scheme, result in results.items()} == {
        scheme: scheme for scheme in ("float32", "float16", "dynamic-range")
    }
    assert all(result.ok for result in results.values())


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    """A program of a few lines at its top level runs once, and leaves nothing but the bundle."""
    script = tmp_path / "script.py"
    script.write_text(
        "import edgepack\nprint('started')\n"
        f"print(edgepack.build({str(MODEL)!r}, 'cpu', scheme='float16', out='out').ok)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("started\nTrue\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "script.py"]


def test_a_check_writes_its_reports(tmp_path: Path) -> None:
    """`sarif` and `summary` write the files of the options, and name a model in memory without its temporary file."""
    edgepack.check(MODEL.read_bytes(), "cpu", sarif=tmp_path / "c.sarif", summary=tmp_path / "c.md")
    texts = (tmp_path / "c.sarif").read_text(), (tmp_path / "c.md").read_text()
    assert json.loads(texts[0])["version"] == "2.1.0" and "cpu" in texts[1]
    assert not any("edgepack-run" in text for text in texts)
