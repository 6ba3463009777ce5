"""The C loader on missing, wrong or duplicate files and libraries: a code and a sentence, never a crash."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cpp_tools
import numpy as np
import pytest
from bundle_specs import quantize_model, spec_of, write_tree
from cpp_tools import link, loader_of, run, runtime_library, self_test_program
from edgetpu_library import segmented, standin

from edgepack.bundle.context import edgetpu_runtime
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, CompileSpec

pytestmark = pytest.mark.slow
KWS = "mlperf-tiny/kws_reference_int8.tflite"
SPLIT = "coral/split_concat.tflite"


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def bundle_of(spec: BundleSpec, folder: Path) -> cpp_tools.Loader:
    return loader_of(write_tree(render(spec), folder))


# -- runtimes and files ------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """No runtime, a wrong library, no data folder, another model's file: exit 2 with the expected values."""
    loader = bundle_of(make_spec(KWS, "cpu"), tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.tflite").write_bytes(quantize_model(8, 0.5, 0, "INT8"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.tflite").write_bytes(b"no model")
    for arguments, says in [
        ([loader.data], "no runtime library found: expected libtensorflowlite_c.so"),
        ([loader.data, "--runtime", "/no/such.so"], "cannot load the runtime: /no/such.so"),
        ([loader.data, "--runtime", "libm.so.6"], "libm.so.6 has the C API of neither TensorFlow Lite nor LiteRT"),
        ([loader.data, "--threads", "-1"], "expected threads >= 0"),
        *(
            ([folder, "--runtime", runtime_library(kind)], says)
            for kind in ("litert", "tflite")
            for folder, says in [
                ("/no/such/folder", "cannot read /no/such/folder/model.tflite: No such file or directory"),
                (tmp_path / "other", "'input_1': expected 490 bytes of int8, the file has 32 of float32"),
                (tmp_path / "broken", "cannot read "),
            ]
        ),
    ]:
        done = run(program, *arguments)
        assert done.returncode == 2 and f"error: {says}" in done.stderr.replace("LiteRT cannot", "cannot").replace(
            "TensorFlow Lite cannot", "cannot"
        ), (arguments, done.stderr)
    assert run(program, "--what", "1").returncode == 2


def test_null_pointers_are_refused(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """The C functions answer null handles, inputs and outputs with a code; an output that is not wanted is allowed."""
    loader = bundle_of(make_spec(KWS, "cpu"), tmp_path / "bundle")
    source = tmp_path / "main.c"
    source.write_text(
        """
#include <stdio.h>
#include "NAME/NAME.h"
#define EXPECT(wanted, call) do { if ((call) != (wanted)) { puts(#call); return 1; } } while (0)
int main(int count, char **arguments) {
  (void)count;
  edgepack_error error = {EDGEPACK_OK, ""};
  const edgepack_options options = {.data_dir = arguments[1], .runtime_library = arguments[2]};
  NAME_model *model = NAME_create(&options, &error);
  if (model == NULL) { puts(error.message); return 1; }
  NAME_inputs inputs = {NULL};
  const NAME_outputs outputs = {NULL};
  edgepack_difference differences[MACRO_DIFFERENCES];
  static float values[MACRO_INPUT_INPUT_1_SIZE];
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_run(model, NULL, &outputs, &error));
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_run(model, &inputs, NULL, NULL));
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_run(model, &inputs, &outputs, &error));
  puts(error.message);
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_run_raw(NULL, NULL, NULL, &error));
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_reset(NULL, &error));
  EXPECT(EDGEPACK_BAD_ARGUMENT, NAME_self_test(model, NULL, &error));
  EXPECT(1, NAME_status(NULL) == NULL);
  inputs.input_1 = values;
  EXPECT(EDGEPACK_OK, NAME_run(model, &inputs, &outputs, &error));
  EXPECT(EDGEPACK_OK, NAME_self_test(model, differences, &error));
  NAME_destroy(model);
  NAME_destroy(NULL);
  return 0;
}
""".replace("NAME", loader.name).replace("MACRO", loader.name.upper())
    )
    program = link(tmp_path / "program", [source], [loader])
    for kind in ("litert", "tflite"):
        done = run(program, loader.data, runtime_library(kind))
        assert (done.returncode, done.stdout) == (0, "'input_1': expected values, got null\n"), done.stderr


def test_two_models_live_in_one_program(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """Two bundles link into one program, load at once and give their own numbers."""
    loaders = [bundle_of(make_spec(file, "cpu"), tmp_path / str(n)) for n, file in enumerate((KWS, SPLIT))]
    one, two = (loader.name for loader in loaders)
    source = tmp_path / "main.cpp"
    source.write_text(
        f'#include "{one}/{one}.hpp"\n#include "{two}/{two}.hpp"\n'
        f"int main(int, char **arguments) {{ edgepack::Options a, b; a.data_dir = arguments[1];"
        f" b.data_dir = arguments[2]; a.runtime_library = b.runtime_library = arguments[3];"
        f" edgepack::{one}::Model first(a); edgepack::{two}::Model second(b);"
        f" for (const auto &found : first.self_test()) {{ if (!found.ok) return 1; }}"
        f" for (const auto &found : second.self_test()) {{ if (!found.ok) return 1; }}"
        f" return 0; }}\n"
    )
    program = link(tmp_path / "program", [source], loaders)
    done = run(program, *(loader.data for loader in loaders), runtime_library("tflite"))
    assert done.returncode == 0, done.stderr


def swapped_model() -> bytes:
    """Return a model of two QUANTIZE ops whose signature lists inputs and outputs in another order than the graph."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromPackedBuf(quantize_model(4, 0.5, 0, "INT8"), 0)
    graph = model.subgraphs[0]
    again = schema.ModelT.InitFromPackedBuf(quantize_model(4, 0.25, 3, "INT8"), 0)
    for tensor, name in zip(again.subgraphs[0].tensors, (b"real2", b"raw2"), strict=True):
        tensor.name = name
        graph.tensors.append(tensor)
    operator = again.subgraphs[0].operators[0]
    operator.inputs, operator.outputs = [2], [3]
    graph.operators.append(operator)
    graph.inputs, graph.outputs = [0, 2], [1, 3]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [], []
    for entries, pairs in (
        (signature.inputs, ((b"a", 2), (b"b", 0))),
        (signature.outputs, ((b"a", 3), (b"b", 1))),
    ):
        for name, index in pairs:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            entries.append(entry)
    model.signatureDefs = [signature]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("kind", ["litert", "tflite"])
def test_a_signatures_order_does_not_matter(tmp_path: Path, kind: str) -> None:
    """Inputs and outputs of equal shape and type are not mixed up where signature and graph order them differently."""
    spec = spec_of(swapped_model(), "swapped", "cpu")
    case = spec.golden.cases[0]
    assert not np.array_equal(case.outputs[0], case.outputs[1])
    loader = bundle_of(spec, tmp_path / "bundle")
    done = run(self_test_program(loader, tmp_path / "program"), loader.data, "--runtime", runtime_library(kind))
    assert done.returncode == 0, done.stdout + done.stderr


# -- Edge TPU ----------------------------------------------------------------------------------------------------------


def test_edge_tpu_is_taken_or_the_reason_given(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """Library missing, wrong, too old, without device, busy or usable: the status has the model and the reason."""
    spec = make_spec(SPLIT, "edgetpu")
    assert spec.compiled is not None
    # The stand-in takes no op, so what it runs must need none of its own.
    host = make_spec(SPLIT, "edgetpu", compiled=spec.host.data)
    runtime = runtime_library("tflite")
    loader = bundle_of(host, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    both = '{0, "/dev/apex_0"}, {1, "/sys/bus/usb/1"}'
    (tmp_path / "wrong").mkdir()
    wrong = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "wrong" / "libedgetpu.so.1")]
    subprocess.run(wrong, input="int nothing;", text=True, check=True)
    steps_down = [
        ("/no/such", "", "no Edge TPU: libedgetpu.so.1: cannot open shared object file"),
        (str(tmp_path / "wrong"), "", "the library has no function edgetpu_list_devices"),
        (standin(tmp_path / "old", both, version=13), "", "has runtime version 13, this model needs 14"),
        (standin(tmp_path / "none", ""), "", "no Edge TPU '' among the 0 connected"),
        (standin(tmp_path / "pci", '{0, "/dev/apex_0"}'), "usb", "no Edge TPU 'usb' among the 1 connected"),
        (standin(tmp_path / "busy", both, busy=True), ":1", "the Edge TPU ':1' cannot be opened"),
        (standin(tmp_path / "there", both), "gpu", "device: expected '', ':N', 'usb'"),
        (str(tmp_path / "there"), "usb:", "device: expected"),
    ]
    for path, device, reason in steps_down:
        arguments = [loader.data, "--runtime", runtime, *(["--device", device] if device else [])]
        done = run(program, *arguments, LD_LIBRARY_PATH=path)
        assert done.returncode == 0 and "model.tflite on cpu" in done.stderr, done.stderr
        assert ("install a libedgetpu of runtime version 14" in done.stderr) == (path == "/no/such" or "old" in path)
        assert f"running on the CPU: {reason}" in done.stderr or reason in done.stderr.split("running on the CPU: ")[1]
        required = run(program, *arguments, "--accelerator", "require", LD_LIBRARY_PATH=path)
        assert required.returncode == 2 and "error: edgetpu was required: " in required.stderr
    for device, opened in [("", "0 /dev/apex_0"), ("usb", "1 /sys/bus/usb/1"), (":1", "1 /sys"), ("pci:0", "0 /dev")]:
        arguments = [loader.data, "--runtime", runtime, *(["--device", device] if device else [])]
        done = run(program, *arguments, LD_LIBRARY_PATH=str(tmp_path / "there"))
        assert done.returncode == 0, done.stderr
        assert "model_edgetpu.tflite on edgetpu, TensorFlow Lite" in done.stderr
        assert f"opened {opened}" in done.stderr
        assert done.stderr.count("freed 1") == done.stderr.count("opened ") == 3
        assert done.stdout.splitlines()[-1].endswith("(tolerance: accelerator)")
    never = run(program, *arguments, "--accelerator", "never", LD_LIBRARY_PATH=str(tmp_path / "there"))
    assert never.returncode == 0 and "opened" not in never.stderr and "running on the CPU" not in never.stderr


def test_a_delegate_that_does_not_take_the_file_is_a_step_down(
    make_spec: Callable[..., BundleSpec], tmp_path: Path
) -> None:
    """A real compiled file whose op no delegate supports falls back to the host file, with TensorFlow Lite's reason."""
    loader = bundle_of(make_spec(SPLIT, "edgetpu"), tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    path = standin(tmp_path / "lib", '{1, "/usb"}')
    done = run(program, loader.data, "--runtime", runtime_library("tflite"), LD_LIBRARY_PATH=path)
    assert done.returncode == 0, done.stderr
    assert "model.tflite on cpu" in done.stderr and "edgetpu-custom-op" in done.stderr
    assert done.stderr.count("opened") == done.stderr.count("freed 1") > 0
    done = run(program, loader.data, "--runtime", runtime_library("litert"), LD_LIBRARY_PATH=path)
    assert done.returncode == 0
    assert "the C API of LiteRT does not support libedgetpu's delegate" in done.stderr


def test_without_a_compiled_file_the_host_runs(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """An Edge TPU bundle that was never compiled says so, even with a device connected."""
    spec = make_spec(SPLIT, "edgetpu", compiled=None, compile=CompileSpec("skipped", reason="not installed"))
    loader = bundle_of(spec, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    path = standin(tmp_path / "lib", '{1, "/usb"}')
    done = run(program, loader.data, "--runtime", runtime_library("tflite"), LD_LIBRARY_PATH=path)
    assert done.returncode == 0 and "no model compiled for the accelerator" in done.stderr


@pytest.mark.parametrize(("version", "runtime"), [("16.0.384591198", 14), ("15.0.1", 13), ("14.1", 13), ("", 14)])
def test_runtime_version_follows_the_compiler(version: str, runtime: int) -> None:
    """Files of compiler 16.0 need runtime 14, those of 15.0 and 14.1 runtime 13."""
    assert edgetpu_runtime(version) == runtime


def test_segments_run_in_order_each_on_its_device(shared_models: Path, tmp_path: Path) -> None:
    """Segments give the golden numbers together, each on the device it is given; fewer devices are taken in turns."""
    spec = segmented((shared_models / SPLIT).read_bytes(), 3)
    loader = bundle_of(spec, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    arguments = [loader.data, "--runtime", runtime_library("tflite")]
    three = standin(tmp_path / "three", '{0, "/dev/apex_0"}, {0, "/dev/apex_1"}, {1, "/usb"}')
    two = standin(tmp_path / "two", '{0, "/dev/apex_0"}, {1, "/usb"}')
    for path, device, opened in [
        (three, "", ["0 /dev/apex_0", "0 /dev/apex_1", "1 /usb"]),
        (three, "usb:0,pci:1,:0", ["1 /usb", "0 /dev/apex_1", "0 /dev/apex_0"]),
        (two, "usb", ["1 /usb"] * 3),
        (two, "", ["0 /dev/apex_0", "1 /usb", "0 /dev/apex_0"]),
    ]:
        done = run(program, *arguments, *(["--device", device] if device else []), LD_LIBRARY_PATH=path)
        assert done.returncode == 0, done.stderr
        assert ", ".join(f"net_segment_{i}_of_3_edgetpu.tflite" for i in range(3)) + " on edgetpu" in done.stderr
        found = [line.removeprefix("opened ") for line in done.stderr.splitlines() if line.startswith("opened ")]
        # Opened anew for each golden case.
        assert found == opened * 3 and done.stderr.count("freed 1") == 9
        assert "FAILED" not in done.stdout and done.stdout.splitlines()[-1].endswith("(tolerance: accelerator)")
        assert ("3 segments share 2 Edge TPUs" in done.stderr) == (path == two and not device)
    for device, reason in [("usb,pci", "one for each of 3 segments, got 'usb,pci'"), (":0,:1,:2", "no Edge TPU ':2'")]:
        done = run(program, *arguments, "--device", device, LD_LIBRARY_PATH=two)
        assert done.returncode == 0 and "model.tflite on cpu" in done.stderr and reason in done.stderr
        assert done.stderr.count("opened ") == done.stderr.count("freed 1")


def test_a_torn_pipeline_is_refused(shared_models: Path, tmp_path: Path) -> None:
    """Segments in the wrong order are detected by their tensors' names; the host model runs."""
    spec = segmented((shared_models / SPLIT).read_bytes(), 2)
    spec = replace(spec, models=(spec.models[0], spec.models[2], spec.models[1]))
    loader = bundle_of(spec, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    path = standin(tmp_path / "lib", '{0, "/a"}, {0, "/b"}')
    done = run(program, loader.data, "--runtime", runtime_library("tflite"), LD_LIBRARY_PATH=path)
    assert done.returncode == 0 and "model.tflite on cpu" in done.stderr
    assert "segment 0 reads '" in done.stderr and "which no earlier one computes" in done.stderr


def test_another_compiled_file_takes_the_place_of_the_own(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """A file that was co-compiled with another model is given by path, or by name in the data folder."""
    spec = make_spec(SPLIT, "edgetpu")
    loader = bundle_of(spec, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    (tmp_path / "other_edgetpu.tflite").write_bytes(spec.host.data)
    (loader.data / "near_edgetpu.tflite").write_bytes(spec.host.data)
    path = standin(tmp_path / "lib", '{1, "/usb"}')
    for given in (str(tmp_path / "other_edgetpu.tflite"), "near_edgetpu.tflite"):
        arguments = [loader.data, "--runtime", runtime_library("tflite"), "--compiled", given]
        done = run(program, *arguments, "--accelerator", "require", LD_LIBRARY_PATH=path)
        assert done.returncode == 0 and f"{given} on edgetpu" in done.stderr, done.stderr
    done = run(program, *arguments[:-1], "gone.tflite", LD_LIBRARY_PATH=path)
    assert done.returncode == 0 and "cannot read" in done.stderr and "model.tflite on cpu" in done.stderr
