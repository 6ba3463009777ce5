"""The Edge TPU side of the Python loader: the runtime version it needs, segments, files that were co-compiled.

libedgetpu is a stand-in that takes no op, so what it is given here are ordinary models: they run on the CPU behind it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_specs import write_tree
from edgetpu_library import segmented, standin
from test_bundle_linux import run

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, CompileSpec, ModelFile
from edgepack.bundle.verify import verify

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler (cc) to make a stand-in libedgetpu: install GCC or Clang"
)

SPLIT = "coral/split_concat.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
TWO = '{0, "/dev/apex_0"}, {1, "/usb"}'
THREE = '{0, "/dev/apex_0"}, {0, "/dev/apex_1"}, {1, "/usb"}'


def said(done: subprocess.CompletedProcess[str], start: str) -> list[str]:
    """Return the stand-in's lines that start with a prefix."""
    return [line for line in done.stderr.splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    ("compile_", "version", "runs"),
    [
        (CompileSpec("compiled", "edgetpu_compiler", "16.0.384591198"), 13, False),
        (CompileSpec("compiled", "edgetpu_compiler", "16.0.384591198"), 14, True),
        (CompileSpec("compiled", "edgetpu_compiler", "16.0.384591198", runtime_version=13), 13, True),
        (CompileSpec("compiled", "edgetpu_compiler", "15.0.340273435"), 12, False),
        (CompileSpec("compiled", "edgetpu_compiler", "15.0.340273435"), 13, True),
    ],
)
def test_the_runtime_version_is_looked_at_before_the_model(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, compile_: CompileSpec, version: int, runs: bool
) -> None:
    """An older libedgetpu than required leads to the CPU with an install hint; a new enough one runs the file."""
    spec = make_spec(SPLIT, "edgetpu")
    spec = make_spec(SPLIT, "edgetpu", compiled=spec.host.data, compile=compile_)
    bundle = write_tree(render(spec), tmp_path / "bundle")
    path = standin(tmp_path / "lib", TWO, version=version)
    done = run(bundle, "--self-test", env={"LD_LIBRARY_PATH": path})
    assert done.returncode == 0, done.stderr
    if runs:
        assert "model_edgetpu.tflite on edgetpu" in done.stderr and said(done, "opened") == ["opened 0 /dev/apex_0"]
        assert "(tolerance: accelerator)" in done.stdout
        return
    needed = 14 if compile_.version.startswith("16") else 13
    assert (
        f"libedgetpu.so.1 has runtime version {version}, this model needs {needed}: install a libedgetpu" in done.stderr
    )
    assert "model.tflite on cpu" in done.stderr and said(done, "opened") == []
    required = run(bundle, "--self-test", "--accelerator", "require", env={"LD_LIBRARY_PATH": path})
    assert required.returncode == 2 and f"needs {needed}: install" in required.stderr


@pytest.mark.parametrize(
    ("devices", "words", "opened"),
    [
        (THREE, [], ["0 /dev/apex_0", "0 /dev/apex_1", "1 /usb"]),
        (THREE, ["--device", "usb:0,pci:1,:0"], ["1 /usb", "0 /dev/apex_1", "0 /dev/apex_0"]),
        (TWO, ["--device", "usb"], ["1 /usb"] * 3),
        (TWO, [], ["0 /dev/apex_0", "1 /usb", "0 /dev/apex_0"]),
    ],
)
@pytest.mark.parametrize("file", [SPLIT, MOBILENET])
def test_segments_run_in_order_each_on_its_device(
    shared_models: Path, tmp_path: Path, file: str, devices: str, words: Sequence[str], opened: list[str]
) -> None:
    """Segments give the golden numbers together: tensors go from one to the next by name, also around one of them."""
    spec = segmented((shared_models / file).read_bytes(), 3)
    bundle = write_tree(render(spec), tmp_path / "bundle")
    done = run(bundle, "--self-test", *words, env={"LD_LIBRARY_PATH": standin(tmp_path / "lib", devices)})
    assert done.returncode == 0, done.stderr
    assert said(done, "opened") == [f"opened {device}" for device in opened]
    assert ", ".join(f"net_segment_{i}_of_3_edgetpu.tflite" for i in range(3)) + " on edgetpu" in done.stderr
    count = 2 * len(spec.outputs)
    assert done.stdout.count("largest difference 0\t") == count
    assert f"self-test: {count} of {count} outputs agree (tolerance: accelerator)" in done.stdout
    assert ("3 segments share 2 Edge TPUs, which is slower" in done.stderr) == (devices == TWO and not words)


def test_segments_without_their_devices_run_on_the_host(shared_models: Path, tmp_path: Path) -> None:
    """No Edge TPU, a wrong number of names, one of them missing: the host's model runs, and the reason is said."""
    bundle = write_tree(render(segmented((shared_models / SPLIT).read_bytes(), 3)), tmp_path / "bundle")
    there = standin(tmp_path / "there", TWO)
    for path, device, reason in [
        (standin(tmp_path / "none", ""), "", "no Edge TPU ':0': "),
        (there, "usb,pci", "device: expected one Edge TPU, or one for each of 3 segments, got 'usb,pci'"),
        (there, ":0,:1,:2", "no Edge TPU ':2': "),
        ("/no/such", "", "cannot open shared object file"),
    ]:
        words = ["--device", device] if device else []
        done = run(bundle, "--self-test", *words, env={"LD_LIBRARY_PATH": path})
        assert done.returncode == 0 and "model.tflite on cpu" in done.stderr, done.stderr
        assert reason in done.stderr and "Traceback" not in done.stderr


def test_the_manifest_has_the_segments_in_order(shared_models: Path, tmp_path: Path) -> None:
    """The segments stand in the order they are run, more than ten as well; `verify` checks that they fit."""
    spec = segmented((shared_models / MOBILENET).read_bytes(), 12)
    bundle = write_tree(render(spec), tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    listed = [(entry["role"], entry["path"]) for entry in manifest["model"]["files"]]
    names = [f"net_segment_{i}_of_12_edgetpu.tflite" for i in range(12)]
    assert listed == [("host", "model/model.tflite"), *(("segment", f"model/{name}") for name in names)]
    assert manifest["model"]["runs"] == f"model/{names[0]}"
    assert all((bundle / "linux" / "src" / "net" / "data" / name).is_file() for name in names)
    assert verify(bundle).ok
    turned = replace(spec, models=(spec.models[0], *spec.models[:0:-1]))
    found = verify(write_tree(render(turned), tmp_path / "turned"))
    assert [problem.path for problem in found.problems] == ["manifest.json"]
    assert "segment 0 reads " in found.problems[0].what


def test_co_compiled_files_come_along_for_their_own_packages(
    make_spec: Callable[..., BundleSpec], tmp_path: Path
) -> None:
    """A package names the files that were compiled with its own; another one runs such a file in place of its own."""
    other = make_spec(MOBILENET, "edgetpu", name="other")
    spec = make_spec(SPLIT, "edgetpu", name="first")
    companion = ModelFile("co-compiled", "other_edgetpu.tflite", other.host.data)
    spec = replace(spec, models=(*spec.models, companion))
    first = write_tree(render(spec), tmp_path / "first")
    assert verify(first).ok
    assert b"other_edgetpu.tflite" in (first / "README.md").read_bytes()
    second = write_tree(render(other), tmp_path / "second")
    program = (
        "from first import CO_COMPILED\nfrom other import Other\n"
        "model = Other(compiled_file=CO_COMPILED['other'], accelerator='require')\n"
        "from other._selftest import self_test\n"
        "print(model.status.model, all(found.ok for found in self_test(model)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "PYTHONPATH": f"{first / 'linux' / 'src'}:{second / 'linux' / 'src'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": standin(tmp_path / "lib", TWO),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    path = first / "linux" / "src" / "first" / "data" / "other_edgetpu.tflite"
    assert done.stdout == f"{path} True\n"
