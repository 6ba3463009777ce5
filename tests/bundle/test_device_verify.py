"""`verify --device`: a device's self-test, its report, and the recorded figures. adb is a stand-in."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import adb_standin
import jvm_tools
import pytest
from bundle_specs import profile_of, spec_of, write_tree
from kotlin_tools import Kotlin

from edgepack.bundle.adb import ADB, parse_instrumentation
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.verify import verify
from edgepack.cli.main import run
from edgepack.profiles.model import BundleRule

REPOSITORY = Path(__file__).resolve().parents[2]
COMPONENT = "com.example.digits.test/com.example.digits.SelfTest"


def spec(**changes: Any) -> BundleSpec:
    """Return the spec of a real model for Android."""
    tflite = (REPOSITORY / "tests" / "data" / "digits_float.tflite").read_bytes()
    profile = profile_of("cpu", bundle=BundleRule("android", "none"))
    return spec_of(tflite, "digits", "cpu", profile=profile, **changes)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sound bundle with a test for devices."""
    return write_tree(render(spec()), tmp_path / "bundle")


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in as EDGEPACK_ADB; returns the folder of its state."""
    folder = tmp_path / "adb-state"
    folder.mkdir()
    monkeypatch.setenv(ADB.variable, str(adb_standin.install(folder)))
    monkeypatch.setenv("ADB_STANDIN", str(folder))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    (folder / "installed").write_text(f"{COMPONENT}\n")
    return folder


def report(bundle: Path, **changes: Any) -> dict[str, Any]:
    """Return the report of a successful self-test on a device with a GPU."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    outputs = [entry["name"] for entry in manifest["outputs"]]
    differences = [
        {"case": case, "output": name, "largest": 0.0039, "allowed": 0.02}
        for case in range(manifest["golden"]["cases"])
        for name in outputs
    ]
    said = {
        "model_sha256": manifest["model"]["files"][0]["sha256"],
        "accelerator": "GPU",
        "reasons": ["HTP: this device does not support HTP_RUNTIME_FP16"],
        "differences": differences,
        "runs": 50,
        "median_ms": 1.625,
        "p90_ms": 2,
    }
    return {**said, **changes}


def answer(adb: Path, said: object) -> None:
    """Let the device's test say something."""
    (adb / "answer").write_text(f"INSTRUMENTATION_RESULT: edgepack={json.dumps(said)}\nINSTRUMENTATION_CODE: -1\n")


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """Run `edgepack verify ... --device --json`; return exit code and document."""
    code = run(["verify", *map(str, words), "--device", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_figures_go_into_the_manifest_and_nothing_else_changes(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Device, differences and times are in the manifest; no other byte of the bundle changes."""
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    answer(adb, report(bundle))
    code, document = command(capsys, bundle, "--runs", "50")
    assert code == 0, document
    after = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    manifest = json.loads(after.pop(bundle / "manifest.json"))
    old = json.loads(before.pop(bundle / "manifest.json"))
    assert after == before
    device = manifest.pop("device")
    assert manifest == old
    assert device == document["results"][0]["device"]
    said = report(bundle)
    del said["model_sha256"]
    assert device == said | {
        "manufacturer": "Google",
        "model": "Pixel 8 Pro",
        "android": "14",
        "sdk": 34,
        "soc": "Tensor G3",
        "abi": "arm64-v8a",
    }
    assert "emulator-5554" not in json.dumps(device)
    assert verify(bundle).ok
    assert (adb / "calls").read_text().splitlines() == [
        "devices -l",
        "-s emulator-5554 shell getprop",
        f"-s emulator-5554 shell am instrument -w -r -e runs 50 {COMPONENT}",
    ]
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []
    # The next device takes the last one's place.
    answer(adb, report(bundle, accelerator="CPU", reasons=[]))
    assert command(capsys, bundle)[0] == 0
    assert json.loads((bundle / "manifest.json").read_bytes())["device"]["accelerator"] == "CPU"


def test_people_read_what_ran_where(bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the device, accelerator with reasons, differences and times are printed as text."""
    answer(adb, report(bundle))
    assert run(["verify", str(bundle), "--device"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "device: Google Pixel 8 Pro (Tensor G3, Android 14), ran on GPU",
        "not on HTP: this device does not support HTP_RUNTIME_FP16",
        "golden vectors: 2 run, largest difference 0.0039 (allowed 0.02)",
        "median 1.62 ms, p90 2 ms of 50 runs",
        "verified: ",
    ):
        assert text in printed
    assert run(["verify", str(bundle)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "measured earlier on Google Pixel 8 Pro (Tensor G3, Android 14): GPU, median 1.62 ms of 50 runs" in printed


def test_a_device_that_computes_otherwise_is_exit_7_with_figures(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Differences beyond the tolerance are listed with case, output and size; the manifest is unchanged."""
    before = (bundle / "manifest.json").read_bytes()
    said = report(bundle)
    said["differences"][1]["largest"] = 0.5
    answer(adb, said)
    code, document = command(capsys, bundle)
    assert (code, document["error"]["kind"]) == (7, "bundle")
    assert "GPU, 1 of 2 outputs differ by more than the tolerance: case 1" in document["error"]["message"]
    assert "0.5, allowed 0.02" in document["error"]["message"]
    assert document["error"]["details"]["device"]["differences"][1]["largest"] == 0.5
    said["differences"][1]["largest"] = None
    answer(adb, said)
    code, document = command(capsys, bundle)
    assert code == 7 and "not comparable, allowed 0.02" in document["error"]["message"]
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "0" * 64}, "contains another model than this bundle"),
        ({"differences": []}, "contains other vectors than this bundle: expected 2 results, got 0"),
        ({"runs": "many"}, "returned an invalid report: runs: expected integer, got text"),
        ({"extra": 1}, "returned an invalid report: extra: unknown key"),
        ({"median_ms": None}, "median_ms: expected number, got null"),
    ],
)
def test_what_the_test_says_is_held_against_the_bundle(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    """A test of another model, of other vectors, or of another edgepack is not accepted for this bundle."""
    answer(adb, report(bundle, **change))
    code, document = command(capsys, bundle)
    assert code == 7 and says in document["error"]["message"] and document["error"]["hint"]


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        ("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n", "Process crashed."),
        (
            "INSTRUMENTATION_RESULT: longMsg=Native crash: Segmentation fault\n"
            "INSTRUMENTATION_RESULT: shortMsg=Native crash\nINSTRUMENTATION_CODE: 0\n",
            "Native crash: Segmentation fault",
        ),
        (
            "INSTRUMENTATION_RESULT: error=java.lang.UnsatisfiedLinkError: no lib\nmore\nINSTRUMENTATION_CODE: 0\n",
            "java.lang.UnsatisfiedLinkError: no lib",
        ),
        ("", "ended without a result"),
        ("INSTRUMENTATION_RESULT: edgepack={\nINSTRUMENTATION_CODE: -1\n", "returned an invalid report"),
        ("INSTRUMENTATION_RESULT: edgepack=[1]\nINSTRUMENTATION_CODE: -1\n", "expected object, got list"),
        ("INSTRUMENTATION_CODE: -1\n", "no report"),
    ],
)
def test_a_test_that_dies_is_exit_7_with_its_words(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str], printed: str, says: str
) -> None:
    """A crash, an error of the loader, no report and an invalid one are different errors with Android's message."""
    (adb / "answer").write_text(printed)
    code, document = command(capsys, bundle)
    assert (code, document["error"]["kind"]) == (7, "bundle")
    assert says in document["error"]["message"]


def test_a_test_that_never_ends_is_stopped(bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The device has a time limit; so has every question to it."""
    (adb / "hang").write_text("instrument")
    code, document = command(capsys, bundle, "--timeout", "1")
    assert code == 7 and "exceeded its time limit of 1 s" in document["error"]["message"]


@pytest.mark.parametrize(
    ("devices", "words", "code", "message", "hint"),
    [
        ("", [], 5, "adb lists no device", "USB debugging"),
        ("X1   unauthorized usb:1-1 transport_id:2\n", [], 5, "adb reports 'unauthorized'", "allow USB debugging"),
        ("X1   offline usb:1-1\n", [], 5, "adb reports 'offline'", "plug it in again"),
        (
            "X1   no permissions (missing udev rules? user is in the plugdev group); see [http://x] usb:1-2\n",
            [],
            5,
            "adb reports 'no permissions'",
            "plugdev",
        ),
        ("X1   recovery usb:1-1\n", [], 5, "adb reports 'recovery'", "start Android"),
        ("X1   device usb:1\nX2   device usb:2\n", [], 2, "adb lists 2 devices: X1 (device), X2 (device)", "--serial"),
        ("X1   device usb:1\n", ["--serial", "X9"], 2, "no device 'X9'", "it lists X1 (device)"),
        ("X1   offline\n", ["--serial", "X1"], 5, "the device X1 cannot be used", "plug it in"),
    ],
)
def test_devices_that_cannot_be_used(
    bundle: Path,
    adb: Path,
    capsys: pytest.CaptureFixture[str],
    devices: str,
    words: list[str],
    code: int,
    message: str,
    hint: str,
) -> None:
    """No device, an unusable one, several: the cause and a hint, with the documented exit code."""
    (adb / "devices").write_text(devices)
    found, document = command(capsys, bundle, *words)
    assert (found, document["error"]["kind"]) == (code, {2: "usage", 5: "device"}[code])
    assert message in document["error"]["message"] and hint in document["error"]["hint"]


@pytest.mark.parametrize("by", ["--serial", "ANDROID_SERIAL", "the other one is offline"])
def test_one_of_several_devices(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The serial number chooses; so does adb's own variable, and there is no question when only one can be used."""
    state = "offline" if by.startswith("the other") else "device"
    (adb / "devices").write_text(f"X1   {state} usb:1\nX2   device usb:2\n")
    answer(adb, report(bundle))
    if by == "ANDROID_SERIAL":
        monkeypatch.setenv(by, "X2")
    assert command(capsys, bundle, *(["--serial", "X2"] if by == "--serial" else []))[0] == 0
    assert "-s X2 shell am instrument" in (adb / "calls").read_text()


def test_a_test_that_is_not_installed_comes_with_its_commands(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the test on the device the answer is exit 5 and the commands that build and install it; --apk does it."""
    (adb / "installed").write_text("")
    code, document = command(capsys, bundle)
    assert (code, document["error"]["kind"]) == (5, "device")
    assert COMPONENT in document["error"]["message"]
    assert f"cp -r '{bundle}/android' device-test" in document["error"]["hint"]
    assert "gradle -p device-test :digits:installDebugAndroidTest" in document["error"]["hint"]
    # The stand-in installs what the file's text names.
    apk = bundle.parent / "digits-debug-androidTest.apk"
    apk.write_text(f"{COMPONENT}\n")
    answer(adb, report(bundle))
    assert command(capsys, bundle, "--apk", apk)[0] == 0
    assert f"-s emulator-5554 install -r -t {apk}" in (adb / "calls").read_text()


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match", "adb uninstall com.example.digits.test"),
        ("INSTALL_FAILED_NO_MATCHING_ABIS", "no native libraries for this device's processor"),
        ("INSTALL_PARSE_FAILED_NOT_APK", "see the output of adb below"),
    ],
)
def test_a_package_that_android_refuses(
    bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str], reason: str, hint: str
) -> None:
    """The error has Android's reason, with hints for the usual ones."""
    (adb / "refusal").write_text(f"adb: failed to install x.apk: Failure [{reason}]\n")
    (bundle.parent / "x.apk").write_text(COMPONENT)
    code, document = command(capsys, bundle, "--apk", bundle.parent / "x.apk")
    assert code == 5 and reason.partition(":")[0] in document["error"]["message"]
    assert hint in document["error"]["hint"]


def test_absent_adb_says_what_to_install(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without adb --device is exit 5 with what to install; a variable with a wrong path is reported too."""
    monkeypatch.delenv(ADB.variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    code, document = command(capsys, bundle)
    assert (code, document["error"]["kind"]) == (5, "tool-missing")
    assert "platform-tools" in document["error"]["hint"]
    monkeypatch.setenv(ADB.variable, "/no/such/adb")
    code, document = command(capsys, bundle)
    assert code == 5 and "does not exist" in document["error"]["message"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: replace(spec(), platform="linux"), "this is not an Android bundle"),
        (lambda: replace(spec(), delivery="ai-pack"), "this delivery has no device test"),
        (lambda: replace(spec(), delivery="aar", classes=b"jar"), "this delivery has no device test"),
    ],
)
def test_bundles_without_a_test_are_refused(
    made: Callable[[], BundleSpec], message: str, adb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Linux bundle and a delivery without sources are usage errors with a hint; no device is contacted."""
    if message == "this is not an Android bundle":
        tflite = (REPOSITORY / "tests" / "data" / "digits_float.tflite").read_bytes()
        bundle = write_tree(render(spec_of(tflite, "digits", "cpu")), tmp_path / "other")
    else:
        bundle = write_tree(render(made()), tmp_path / "other")
    code, document = command(capsys, bundle)
    assert (code, document["error"]["kind"]) == (2, "usage")
    assert message in document["error"]["message"] and document["error"]["hint"]
    assert not (adb / "calls").exists()


def test_an_unsound_bundle_never_reaches_a_device(bundle: Path, adb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that differ from the manifest never run: the hashes are checked first."""
    (bundle / "README.md").write_text("changed")
    assert command(capsys, bundle)[0] == 7
    assert not (adb / "calls").exists()


def test_wrong_use(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--serial and --apk without --device, and an .apk that does not exist, end with 2."""
    for words in (["--serial", "X"], ["--apk", str(bundle / "manifest.json")], ["--device", "--apk", "no.apk"]):
        assert run(["verify", str(bundle), *words]) == 2
    capsys.readouterr()


def test_doctor_lists_adb(adb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor` reports whether adb is installed and its version."""
    assert run(["doctor", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["results"]}
    assert entries["adb"]["found"] and entries["adb"]["version"] == "1.0.41"


def test_values_that_span_lines_are_whole() -> None:
    """Results may have several lines, Windows line ends and separators of Unicode; statuses are kept apart."""
    found = parse_instrumentation(
        "INSTRUMENTATION_STATUS: id=x\r\nINSTRUMENTATION_STATUS_CODE: 1\r\nnoise\r\n"
        "INSTRUMENTATION_RESULT: a=one\r\ntwo\u2028still two\r\n"
        "INSTRUMENTATION_RESULT: b=k=v\r\nINSTRUMENTATION_CODE: -1\r\n"
    )
    assert found.results == {"a": "one\ntwo\u2028still two", "b": "k=v"}
    assert (found.statuses, found.code) == ({"id": "x"}, -1)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["kotlin", "java"])
def test_the_generated_test_is_what_verify_reads(
    kotlin: Kotlin, standins: Path, language: str, tmp_path: Path, adb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The generated self-test on a JVM with recorded outputs returns a report that `verify --device` records."""
    made = spec(language=language)
    bundle = write_tree(render(made), tmp_path / "bundle")
    ending = {"kotlin": "*.kt", "java": "*.java"}[language]
    classes = tmp_path / "classes"
    compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
    done = compiler(sorted(bundle.rglob(ending)), classes)
    assert done.returncode == 0, done.stderr
    replay = tmp_path / "replay"
    replay.mkdir()
    jvm_tools.write_recording(replay, jvm_tools.Recording([], [], [], []), made, 0)
    jvm_tools.write_archive(render(made), replay / "app.zip")
    printed = jvm_tools.instrument(kotlin, standins, classes, "com.example.digits", replay)
    (adb / "answer").write_text(printed)
    code, document = command(capsys, bundle)
    assert code == 0, (document, printed)
    device = document["results"][0]["device"]
    assert (device["accelerator"], device["reasons"], device["runs"]) == ("CPU", [], 4)
    assert [entry["largest"] for entry in device["differences"]] == [0.0, 0.0]
    assert 0 < device["median_ms"] <= device["p90_ms"]
    assert verify(bundle).ok
    # Without `runs` it runs the JUnit tests.
    test = ("class", "com.example.digits.GoldenVectorsTest")
    assert "ran=1 tests, []" in jvm_tools.instrument(kotlin, standins, classes, "com.example.digits", replay, *test)
    # A model that is not there is an error in words, not a crash.
    jvm_tools.write_archive({}, replay / "app.zip")
    (adb / "answer").write_text(jvm_tools.instrument(kotlin, standins, classes, "com.example.digits", replay))
    code, document = command(capsys, bundle)
    assert code == 7 and "FileNotFoundException: digits/model.tflite" in document["error"]["message"]
