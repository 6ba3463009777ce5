#!/usr/bin/env python3
"""A stand-in for Google's `edgetpu_compiler`, which is not available on every machine.

It reproduces the recorded behaviour of version 16.0.384591198: command line, files, standard output, operation log and
the failures that users reported. It does not compile. For an input that is one of Coral's published originals (in
EDGEPACK_TEST_MODELS or `../shared/models` beside the checkout) it writes the file that the real compiler produced from
it and logs the ops that the real compiler mapped. For any other quantized model it writes a file with one
`edgetpu-custom-op` in place of the leading ops and copies the rest, so that file and log agree; such a file does not
run on an Edge TPU. Segments (`-n`) are split between ops and each is reported as a separate compilation; several models
on one command line are reported together, as in issues 557, 411, 518 and 458 of google-coral/edgetpu.

Run directly, it needs a `python3` with edgepack's dependencies; `install(folder)` writes a program that always works:

    EDGEPACK_EDGETPU_COMPILER=<that program> edgepack build ...

Environment:
    EDGETPU_STANDIN_SCENARIO  one of SCENARIOS (default `success`)
    EDGETPU_STANDIN_EXIT      exit code of failures with a message (default 1; the real codes are undocumented)
    EDGETPU_STANDIN_STATE     file to which every compilation appends its arguments; `...-once` scenarios need it
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
VERSION = "16.0.384591198"

#: Output of the real compiler for one model.
RECORDED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1857 ms.

Input model: m.tflite
Input size: 5.20MiB
Output model: m_edgetpu.tflite
Output size: 6.51MiB
On-chip memory used for caching model parameters: 6.02MiB
On-chip memory remaining for caching model parameters: 1.02MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 84
Operation log: m_edgetpu.log
Model successfully compiled but not all operations are supported by the Edge TPU. (...)
Number of operations that will run on Edge TPU: 82
Number of operations that will run on CPU: 2
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""

#: Scenario -> message of a failure. `%` stands for the model's file name.
FAILURES = {
    "not-quantized": "ERROR: Invalid model: %\nModel not quantized",
    "not-parsed": "ERROR: Invalid model: %\nModel could not be parsed",
    "op-version": "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin "
    "might be supported.\nERROR: Registration failed.\nInvalid model: %\nModel could not be parsed",
    "op-code": "ERROR: Op builtin_code out of range: 150. Are you using old TFLite binary with newer model?\n"
    "ERROR: Registration failed.\nInvalid model: %\nModel could not be parsed",
    "dynamic": "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
    "dynamic-sized tensors.",
    "large-activations": "Compilation failed due to large activation tensors in model.",
    "internal-error": "Internal compiler error. Aborting!",
    "out-of-range": "terminate called after throwing an instance of 'std::out_of_range'\n"
    "  what():  std::out_of_range: vector",
    "unheard-of": "a message that is not on record",
}
SCENARIOS = (
    "success",
    "partial",
    "zero-ops",
    *FAILURES,
    "internal-error-once",
    "segfault",
    "segfault-once",
    "hang",
    "no-file",
    "empty-file",
    "no-success-line",
    "half-success",
    "nonzero-with-file",
    "second-segment-fails",
    "version-only",
    "torn-pipeline",
)

#: Ops that the compiler is known not to map.
_HOST_OPS = {
    "ARG_MAX", "ARG_MIN", "GATHER", "GATHER_ND", "UNPACK", "DIV", "SQRT", "EXP", "LOG", "ABS", "NEG", "FLOOR", "CAST",
    "DEQUANTIZE", "LEAKY_RELU", "HARD_SWISH", "ELU", "GELU", "BATCH_MATMUL", "DEPTH_TO_SPACE", "SPLIT_V", "PADV2",
    "MIRROR_PAD", "TOPK_V2", "SELECT", "SELECT_V2", "BROADCAST_TO", "CONV_3D", "SHAPE", "CUSTOM",
}  # fmt: skip


def install(folder: Path) -> Path:
    """Write `edgetpu_compiler` into `folder`: this file, run by the Python that runs the tests; return its path."""
    program = folder / "edgetpu_compiler"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)
    return program


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgetpu_compiler")
    parser.add_argument("-o", "--out_dir", default=".")
    parser.add_argument("-s", "--show_operations", action="store_true")
    parser.add_argument("-i", "--intermediate_tensors")
    parser.add_argument("-m", "--min_runtime_version", type=int, default=14, choices=range(10, 15))
    parser.add_argument("-n", "--num_segments", type=int, default=1)
    parser.add_argument("-d", "--search_delegate", action="store_true")
    parser.add_argument("-k", "--delegate_search_step", type=int, default=1)
    parser.add_argument("-t", "--timeout_sec", type=int, default=180)
    parser.add_argument("-a", "--enable_multiple_subgraphs", action="store_true")
    parser.add_argument("-v", "--version", action="store_true")
    parser.add_argument("models", nargs="*", type=Path)
    return parser.parse_args()


def _coral() -> Path | None:
    for place in (os.environ.get("EDGEPACK_TEST_MODELS"), str(_ROOT.parent / "shared" / "models")):
        if place and (Path(place) / "coral" / "expected.json").is_file():
            return Path(place) / "coral"
    return None


def _published(data: bytes) -> tuple[bytes, list[dict]] | None:
    """Return the real compiler's file and its host ops, None when the input is not one of Coral's."""
    coral = _coral()
    if coral is None:
        return None
    for name, facts in json.loads((coral / "expected.json").read_text()).items():
        original = coral / name
        if original.stat().st_size == len(data) and original.read_bytes() == data:
            return (coral / facts["compiled"]).read_bytes(), facts["host_ops"]
    return None


def _rows(ops: list[str], host: dict[int, str]) -> list[tuple[str, int, str]]:
    counted = Counter((op.partition(":")[0], host.get(i, "Mapped to Edge TPU")) for i, op in enumerate(ops))
    return [(op, count, status) for (op, status), count in counted.items()]


def _unpack(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


def _pack(model: Any) -> bytes:
    """Return a model's bytes without the constants that no op reads."""
    import flatbuffers

    graph = model.subgraphs[0]
    # The real compiler stores the weights of mapped ops only inside its custom op.
    used = {graph.tensors[int(t)].buffer for op in graph.operators for t in op.inputs if t >= 0}
    for tensor in graph.tensors:
        if tensor.buffer not in used:
            model.buffers[tensor.buffer].data = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def cut(data: bytes, mapped: int) -> bytes:
    """Return the model with its first `mapped` ops replaced by one edgetpu-custom-op."""
    from ai_edge_litert import schema_py_generated as schema

    model = _unpack(data)
    graph = model.subgraphs[0]
    front, rest = graph.operators[:mapped], graph.operators[mapped:]
    if front:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.deprecatedBuiltinCode = 32
        code.customCode, code.version = "edgetpu-custom-op", 1
        model.operatorCodes.append(code)
        written = {int(t) for op in front for t in op.outputs}
        read = {int(t) for op in front for t in op.inputs if t >= 0}
        used = {int(t) for op in rest for t in op.inputs} | {int(t) for t in graph.outputs}
        op = schema.OperatorT()
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs = [int(t) for t in graph.inputs if int(t) in read]
        op.outputs = sorted(written & used)
        op.customOptions = list(b"stand-in")
        graph.operators = [op, *rest]
    return _pack(model)


def split(data: bytes, count: int) -> list[bytes]:
    """Return the model split between ops into `count` pipelined models."""
    whole = _unpack(data).subgraphs[0]
    ends = [len(whole.operators) * (i + 1) // count for i in range(count)]
    available = {int(t) for t in whole.inputs}
    parts = []
    for start, end in pairwise([0, *ends]):
        model = _unpack(data)
        graph = model.subgraphs[0]
        own, later = graph.operators[start:end], graph.operators[end:]
        written = {int(t) for op in own for t in op.outputs}
        read = {int(t) for op in own for t in op.inputs if t >= 0}
        used = {int(t) for op in later for t in op.inputs} | {int(t) for t in graph.outputs}
        graph.operators = own
        graph.inputs = sorted(read & available)
        graph.outputs = sorted(written & used)
        model.signatureDefs = None
        available |= written
        parts.append(_pack(model))
    return parts


def _torn(data: bytes) -> bytes:
    """Return a model whose first input no other segment writes."""
    model = _unpack(data)
    graph = model.subgraphs[0]
    graph.tensors[int(graph.inputs[0])].name = b"nowhere"
    return _pack(model)


def _compile(data: bytes, scenario: str) -> tuple[bytes, list[tuple[str, int, str]]]:
    sys.path.insert(0, str(_ROOT))
    from edgepack.graph import read_model

    ops = [op.label for op in read_model(data).main.ops]
    if scenario == "zero-ops":
        return cut(data, 0), _rows(ops, dict.fromkeys(range(len(ops)), "Operation not supported"))
    published = _published(data) if scenario != "partial" else None
    if published is not None:
        compiled, left = published
        unspecified = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
        words = {"ARG_MAX": "Operation not supported", "RESIZE_BILINEAR": unspecified}
        words |= {op["op"]: "Operation is working on an unsupported data type" for op in left if ":" in op["op"]}
        host = {op["idx"]: words.get(op["op"], "More than one subgraph is not supported") for op in left}
        return compiled, _rows(ops, host)
    mapped = next((i for i, op in enumerate(ops) if op.partition(":")[0] in _HOST_OPS), len(ops))
    if scenario == "partial":
        mapped = min(mapped, len(ops) - 1)
    host = dict.fromkeys(range(mapped, len(ops)), "More than one subgraph is not supported")
    if mapped < len(ops):
        host[mapped] = "Operation not supported"
    return cut(data, mapped), _rows(ops, host)


def _size(count: int) -> str:
    for unit, step in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.2f}{unit}"
    return f"{count:.2f}B"


def _wrong(data: bytes) -> str:
    """Return the failure of a file that cannot be compiled, empty when it can."""
    if data[4:8] != b"TFL3":
        return "not-parsed"
    sys.path.insert(0, str(_ROOT))
    from edgepack.graph import read_model

    return "" if read_model(data).is_quantized else "not-quantized"


def _fail(text: str, name: str) -> int:
    sys.stdout.flush()
    print(text.replace("%", name), file=sys.stderr)
    return int(os.environ.get("EDGETPU_STANDIN_EXIT", "1"))


def _timer(seconds: int) -> None:
    print(f"Started a compilation timeout timer of {seconds} seconds.\n", flush=True)


def _write(folder: Path, stem: str, data: bytes, scenario: str) -> str:
    """Compile one model, write its files and return its part of the output."""
    compiled, rows = _compile(data, scenario)
    output, log = folder / f"{stem}_edgetpu.tflite", folder / f"{stem}_edgetpu.log"
    if scenario == "torn-pipeline" and "_segment_1_" in stem:
        compiled = _torn(compiled)
    if scenario != "no-file":
        output.write_bytes(b"" if scenario == "empty-file" else compiled)
    head = f"Edge TPU Compiler version {VERSION}\nInput: {stem}.tflite\nOutput: {output.name}\n\n"
    table = "".join(f"{op:<31}{count:<11}{status}\n" for op, count, status in reversed(rows))
    log.write_text(f"{head}{'Operator':<31}{'Count':<11}Status\n\n{table}")
    on_tpu = sum(count for _, count, status in rows if status == "Mapped to Edge TPU")
    total = sum(count for _, count, _ in rows)
    lines = [
        f"Input model: {stem}.tflite\nInput size: {_size(len(data))}",
        f"Output model: {output.name}\nOutput size: {_size(len(compiled))}",
        f"On-chip memory used for caching model parameters: {_size(len(compiled))}",
        "On-chip memory remaining for caching model parameters: 1.02MiB",
        "Off-chip memory used for streaming uncached model parameters: 0.00B",
        f"Number of Edge TPU subgraphs: {int(on_tpu > 0)}\nTotal number of operations: {total}",
        f"Operation log: {log.name}",
    ]
    if on_tpu < total:
        lines += [
            "Model successfully compiled but not all operations are supported by the Edge TPU. (...)",
            f"Number of operations that will run on Edge TPU: {on_tpu}",
            f"Number of operations that will run on CPU: {total - on_tpu}",
        ]
    return "\n".join([*lines, "See the operation log file for individual operation details."])


_END = "Compilation child process completed within timeout period.\nCompilation succeeded!"


def _segments(arguments: argparse.Namespace, data: bytes, scenario: str) -> int:
    (path,), count = arguments.models, arguments.num_segments
    for number, part in enumerate(split(data, count)):
        if scenario == "second-segment-fails" and number == 1:
            print("ERROR: Restored original execution plan after delegate application failure.", file=sys.stderr)
            print("Compilation failed: Compilation failed due to large activation tensors in model.")
            print("Compilation child process completed within timeout period.\nCompilation failed! ")
            return int(os.environ.get("EDGETPU_STANDIN_EXIT", "1"))
        if number:
            _timer(arguments.timeout_sec)
        text = _write(Path(arguments.out_dir), f"{path.stem}_segment_{number}_of_{count}", part, scenario)
        print(f"Model compiled successfully in 1857 ms.\n\n{text}\n{_END} ")
    return 0


def main() -> int:
    arguments = _arguments()
    print(f"Edge TPU Compiler version {VERSION}")
    scenario = os.environ.get("EDGETPU_STANDIN_SCENARIO", "success")
    if arguments.version:
        return 0
    if not arguments.models:
        print("Need at least one input model")
        return 1
    if scenario not in SCENARIOS or (len(arguments.models) > 1 and arguments.num_segments > 1):
        print(f"stand-in: no record of {scenario} with {sys.argv[1:]}")
        return 1
    runs = 1
    if state := os.environ.get("EDGETPU_STANDIN_STATE"):
        with Path(state).open("a") as stream:
            stream.write(" ".join(sys.argv[1:]) + "\n")
        runs = len(Path(state).read_text().splitlines())
    if scenario.endswith("-once"):
        scenario = scenario.removesuffix("-once") if runs == 1 else "success"
    if scenario == "version-only":
        return 0
    _timer(arguments.timeout_sec)
    if scenario == "hang":
        time.sleep(600)
    if scenario == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    models = {path: path.read_bytes() for path in arguments.models}
    for path, data in models.items():
        failure = "not-parsed" if data[4:8] != b"TFL3" else scenario if scenario != "success" else _wrong(data)
        if failure in FAILURES:
            return _fail(FAILURES[failure], path.name)
    if arguments.num_segments > 1:
        return _segments(arguments, *models.values(), scenario)
    texts = [_write(Path(arguments.out_dir), path.stem, data, scenario) for path, data in models.items()]
    if scenario == "no-success-line":
        return 0
    print(f"Model{'s' if len(models) > 1 else ''} compiled successfully in 1857 ms.\n")
    print("\n\n".join(texts))
    if scenario == "half-success":
        return 0
    print(_END)
    return 1 if scenario == "nonzero-with-file" else 0


if __name__ == "__main__":
    sys.exit(main())
