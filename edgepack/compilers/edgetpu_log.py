"""Parses the output of `edgetpu_compiler`: figures, placements and failures. Pure.

The formats are those of version 16.0.384591198, which `tests/compilers/edgetpu_standin.py` reproduces.
"""

import re
from dataclasses import dataclass
from typing import Any

from edgepack.compilers.base import CompiledOp
from edgepack.findings import Placement

#: Line with the compiler's version, the first one that it prints.
VERSION_PATTERN = r"Edge TPU Compiler version (\S+)"

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

#: Figure -> its line on standard output. Sizes become bytes, with the precision of the two decimals printed.
_SIZES = {
    "on_chip_used_bytes": "On-chip memory used for caching model parameters",
    "on_chip_remaining_bytes": "On-chip memory remaining for caching model parameters",
    "off_chip_bytes": "Off-chip memory used for streaming uncached model parameters",
}
_COUNTS = {
    "subgraphs": "Number of Edge TPU subgraphs",
    "total_ops": "Total number of operations",
    "accelerator_ops": "Number of operations that will run on Edge TPU",
    "host_ops": "Number of operations that will run on CPU",
}

#: Status of a row in the operation log -> reason code, the check's where there is one; empty on the accelerator.
STATUS_CODES = {
    "Mapped to Edge TPU": "",
    "More than one subgraph is not supported": "outside-partition",
    "Operation not supported": "op-not-supported",
    "Operation version not supported": "version",
    "Operation is working on an unsupported data type": "dtype",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation": "unspecified-limitation",
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)": "rank-above-3",
    "Filter, bias, or other param is not constant at compile-time": "not-constant",
}


@dataclass(frozen=True)
class Failure:
    """A known failure of the compiler.

    Attributes:
        cause: Stable identifier, in the error's details.
        message: What happened.
        fix: What to do about it.
        flaky: True for failures that are known to disappear on a second or third run.
    """

    cause: str
    message: str
    fix: str
    flaky: bool = False


#: Ops whose newer version comes from one known layer, with the replacement.
_NEWER_OPS = {
    "CONV_2D": "version 6 is a grouped convolution: use groups=1, or one convolution per group and a concatenation",
    "RESHAPE": "5-D tensors come from UpSampling2D with nearest interpolation: use interpolation='bilinear'",
    "TILE": "it comes from UpSampling2D and tf.tile: use bilinear upsampling or a concatenation",
    "EXP": "replace exponential activations by relu, relu6, tanh or sigmoid",
    "SQRT": "compute the square root in the host program",
}


def failure_of(output: str, exit_code: int, signal_name: str) -> Failure:
    """Translate a failed run.

    Args:
        output: Everything that the compiler printed.
        exit_code: Its exit code.
        signal_name: Name of the signal when it crashed (`SIGSEGV`), empty otherwise.

    Returns:
        The most specific failure that matches; cause `unknown` when none does.
    """
    if match := re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", output):
        op, version = match.groups()
        more = _NEWER_OPS.get(op, "'edgepack check -t edgetpu' shows the supported versions of every op")
        return Failure(
            "parser-version",
            f"the Edge TPU compiler does not support {op} version {version}: its TFLite is from July 2021",
            f"express the layer with older ops; {more}",
        )
    if match := re.search(r"Op builtin_code out of range: (\d+)", output):
        name = {"150": "GELU (code 150)"}.get(match.group(1), f"code {match.group(1)}")
        return Failure(
            "builtin-code",
            f"the model has an op that is newer than the Edge TPU compiler: {name}",
            "replace the layer (for example gelu by relu6); 'edgepack check -t edgetpu' names the op",
        )
    for pattern, failure in _FAILURES:
        if re.search(pattern, output):
            return failure
    if signal_name:
        return Failure(
            "crash",
            f"the Edge TPU compiler crashed with {signal_name}",
            "build again; if it keeps crashing, split the model or simplify its last layers to find the cause",
            flaky=signal_name == "SIGSEGV",
        )
    return Failure(
        "unknown",
        f"the Edge TPU compiler failed with exit code {exit_code} and no known message"
        if exit_code
        else "the Edge TPU compiler ended with exit code 0 but did not report that the model was compiled",
        "see the end of its log below; 'edgepack check -t edgetpu' shows ops that may cause the failure",
    )


_RETRY_SMALLER = "set the option search_delegate = true, which retries with fewer ops, or else simplify the last layers"
_FAILURES = (
    (
        r"Model not quantized",
        Failure(
            "not-quantized",
            "the Edge TPU compiler supports only fully quantized models, and this one has float tensors",
            "build with --scheme int8 and representative samples (--samples)",
        ),
    ),
    (
        r"Model could not be parsed|Invalid model:",
        Failure(
            "not-parsed",
            "the Edge TPU compiler cannot parse the model: the file is corrupt, or newer than TFLite of July 2021",
            "run 'edgepack inspect' on it: ops, types and min_runtime_version must not be newer than TensorFlow 2.6",
        ),
    ),
    (
        r"static-sized tensors with a graph that has dynamic-sized tensors",
        Failure(
            "dynamic-shape",
            "the model has tensors whose shape is only known at run time; the Edge TPU needs static shapes",
            "set the batch size to 1 and the other dimensions with --input-shape NAME=1,224,224,3",
        ),
    ),
    (
        r"Compilation failed due to large activation tensors in model",
        Failure(
            "large-activations",
            "an activation tensor is too large for the Edge TPU's on-chip memory",
            "use a smaller input, or reduce height and width earlier in the model",
        ),
    ),
    (
        r"std::out_of_range: vector",
        Failure(
            "out-of-range",
            "the Edge TPU compiler failed with an internal index error (std::out_of_range)",
            _RETRY_SMALLER,
        ),
    ),
    (
        r"Internal compiler error",
        Failure(
            "internal-error",
            "the Edge TPU compiler reports an internal error",
            _RETRY_SMALLER,
            flaky=True,
        ),
    ),
)


def succeeded(output: str, times: int = 1) -> bool:
    """Return whether the compiler reports success.

    From version 16 on it works in a child process under a timer and reports success again at the end; then both lines
    are required.

    Args:
        output: Its output.
        times: Number of reports required: segments are compiled one after the other, co-compiled models at once.
    """
    if len(re.findall(r"^Models? compiled successfully\b", output, re.MULTILINE)) < times:
        return False
    timers = output.count("Started a compilation timeout timer")
    return output.count("Compilation succeeded!") >= timers


def version_in(output: str) -> str:
    """Return the compiler's version, empty when the output does not contain it."""
    match = re.search(VERSION_PATTERN, output)
    return match.group(1) if match else ""


def figures_of_each(output: str) -> dict[str, dict[str, Any]]:
    """Return the figures of each model in the output, by the name of its input file."""
    blocks = re.split(r"^Input model: ", output, flags=re.MULTILINE)[1:]
    return {block.partition("\n")[0].strip().rpartition("/")[2]: figures_in(block) for block in blocks}


def figures_in(output: str) -> dict[str, Any]:
    """Return the figures in the output: bytes and counts, only those that are present."""
    figures: dict[str, Any] = {}
    for name, line in _SIZES.items():
        if match := re.search(rf"^{line}: ([\d.]+)\s*(B|KiB|MiB|GiB)\s*$", output, re.MULTILINE):
            figures[name] = round(float(match.group(1)) * _UNITS[match.group(2)])
    for name, line in _COUNTS.items():
        if match := re.search(rf"^{line}: (\d+)\s*$", output, re.MULTILINE):
            figures[name] = int(match.group(1))
    return figures


def placements_in(log: str) -> tuple[CompiledOp, ...]:
    """Return the rows of an operation log, sorted by op, the accelerator's first.

    An unknown status is kept as text and has the code `unknown-status`.
    """
    rows = []
    for line in log.splitlines():
        if not (match := re.fullmatch(r"\s*(\S+)\s{2,}(\d+)\s{2,}(\S.*?)\s*", line)):
            continue
        op, count, status = match.group(1), int(match.group(2)), match.group(3)
        code = STATUS_CODES.get(status, "unknown-status")
        rows.append(CompiledOp(op, count, Placement.HOST if code else Placement.ACCELERATOR, status, code))
    return tuple(sorted(rows, key=lambda row: (row.op, row.placement is Placement.HOST, row.status)))
