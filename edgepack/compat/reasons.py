"""Every reason code, its meaning and its fix: the table behind messages and docs/reference/reasons.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.findings import Reason
from edgepack.profiles.vocabulary import QUANTITIES


@dataclass(frozen=True)
class ReasonKind:
    """One reason code.

    Attributes:
        code: Stable identifier; `N` stands for a number in the codes that carry one (`rank-above-3`).
        meaning: When it is reported, one sentence.
        fix: What the user can do.
    """

    code: str
    meaning: str
    fix: str


_SMALLER = "reduce it in the model, or split the layer in two"
_LAYER = "change the layer's setting in the model and convert again"

#: Fix of `limit-*` by quantity; quantities without an entry have the fix `_LAYER`.
_LIMIT_FIXES = {
    "aligned_resize_factor_h": "resize in several steps, each within the limit",
    "aligned_resize_factor_w": "resize in several steps, each within the limit",
    "arch": "name the SoC with --soc, or build for one of that architecture",
    "batch": "convert the model with batch size 1 and run it once per sample",
    "bias_bits": "calibrate with samples of the real range: a bias this large comes from a very small scale",
    "cell_clip": "build the LSTM without cell clipping",
    "constant_inputs": "swap or fold constants in the model until the inputs are what the accelerator supports",
    "dimension": _SMALLER,
    "groups": "replace the grouped convolution by a split, one convolution per group and a concatenation",
    "input_area": _SMALLER,
    "input_elements": _SMALLER,
    "input_rank": "reshape the tensor to a supported rank before this layer",
    "inputs": "chain several ops with fewer inputs each",
    "kernel_area": _SMALLER,
    "kernel_h": _SMALLER,
    "kernel_w": _SMALLER,
    "output_elements": _SMALLER,
    "output_rank": "reshape the tensor to a supported rank after this layer",
    "reduced_elements": "reduce in two steps",
    "resize_factor_h": "resize in several steps, each within the limit",
    "resize_factor_w": "resize in several steps, each within the limit",
    "runtime_inputs": "make the other inputs constant, or compute this layer outside the model",
    "runtime_version": "compile for a newer runtime with --runtime-version, and install that runtime on the device",
    "pad_h": "use padding VALID, or a padding layer before this one",
    "pad_w": "use padding VALID, or a padding layer before this one",
    "slice_stride": "slice with stride 1, or replace the strided slice by a pooling layer with that stride",
    "slice_stride_c": "slice the channels with stride 1, or move the axis with a transpose first",
    "slice_stride_min": "slice with positive strides, and reverse in the app",
    "soc_float16": "quantize to int8, or name a SoC that computes in float16 with --soc",
    "stride_h": "use a smaller stride, followed by a pooling layer for the rest",
    "stride_w": "use a smaller stride, followed by a pooling layer for the rest",
    "weights_abs_sum": "use fewer input channels or a smaller kernel",
}

_KINDS = (
    ReasonKind(
        "batch", "The file's batch size is not the one that the target runs.", "convert the model with that batch size"
    ),
    ReasonKind(
        "bias-dtype",
        "The bias has a data type that the accelerator does not support.",
        "quantize with edgepack build, which writes the bias type that the target supports",
    ),
    ReasonKind(
        "broadcast",
        "The accelerator cannot broadcast the shapes of the op's inputs.",
        "reshape or tile the smaller input in the model so that the shapes agree",
    ),
    ReasonKind(
        "built-in-kernel",
        "On a CPU: the op has no fast kernel (XNNPACK) and runs on the built-in kernel, with the same result.",
        "no action needed; if the op dominates the latency, use a layer that has fast kernels",
    ),
    ReasonKind(
        "builtin-code",
        "The compiler's parser does not know this op, and the compiler refuses the whole file.",
        "replace the layer by older ops: the parser knows those of TensorFlow 2.6 and earlier",
    ),
    ReasonKind(
        "compile-fails",
        "The compiler accepts the op and then fails, so that it writes no file at all.",
        "replace the op that the message names, or compile without this SoC",
    ),
    ReasonKind(
        "compile-refused",
        "The op is supported, but the compiler refuses the whole file because of another op.",
        "replace or change the op that the message names",
    ),
    ReasonKind(
        "compiled-elsewhere",
        "The file was compiled for another accelerator.",
        "pass the file from before that compilation",
    ),
    ReasonKind(
        "compiler-leaves",
        "The vendor's compiler was asked about this file and leaves the op on the host; its own words follow.",
        "give the op the data types and the rank that the compiler names, or replace it",
    ),
    ReasonKind(
        "constant-input",
        "An input is a constant, but the accelerator expects an activation.",
        "fold the constant: compute the layer's result once and store it in the model",
    ),
    ReasonKind(
        "consumer",
        "On this accelerator, only certain ops may read the op's output.",
        "let exactly one of the ops that the message names read the output",
    ),
    ReasonKind(
        "custom-op",
        "A custom op that no known runtime registers.",
        "replace the layer by built-in ops, or ship a runtime that registers the op",
    ),
    ReasonKind(
        "custom-op-elsewhere",
        "A custom op that only another runtime registers, so that the loaders of a bundle cannot load the model.",
        "replace the layer by built-in ops, or cut the op off and run it in the app",
    ),
    ReasonKind(
        "custom-op-registered",
        "A custom op that LiteRT registers itself; it runs on the CPU.",
        "no action needed; to keep it off the CPU, cut the op off and run it in the app",
    ),
    ReasonKind(
        "dtype",
        "A tensor has a data type that the accelerator does not support.",
        "quantize to a scheme of this target: edgepack build MODEL -t TARGET",
    ),
    ReasonKind(
        "dtype-combination",
        "The accelerator supports the op, but not with these data types together.",
        "quantize to a scheme of this target: edgepack build MODEL -t TARGET",
    ),
    ReasonKind(
        "dtype-float",
        "A tensor is floating-point where the accelerator supports only integers.",
        "quantize the model: edgepack build MODEL -t TARGET --samples SRC",
    ),
    ReasonKind(
        "dtype-wide-integer",
        "An index or a count has 64 bits where the accelerator supports 32.",
        "make it int32 in the model: output_type=tf.int32 of tf.argmax, dtype of tf.range and tf.shape, else tf.cast",
    ),
    ReasonKind(
        "dtype-quantized",
        "A tensor is quantized, but the accelerator supports the op only in floating point.",
        "use a floating-point scheme of the target, or run this op in the app",
    ),
    ReasonKind(
        "dtype-mismatch",
        "Tensors of the op must have the same data type.",
        "quantize the whole model with one scheme, or cast in the model",
    ),
    ReasonKind(
        "dtype-pair",
        "The accelerator does not support this conversion between data types.",
        "cast outside the model, or between types that the message names",
    ),
    ReasonKind(
        "dynamic-shape",
        "A dimension is known only at run time.",
        "set it: edgepack build MODEL --input-shape NAME=1,224,224,3; an open batch becomes 1 automatically",
    ),
    ReasonKind(
        "flex-op",
        "An op of Select TensorFlow, which the LiteRT runtime does not include.",
        "replace the layer by built-in ops and convert without SELECT_TF_OPS",
    ),
    ReasonKind(
        "float-io",
        "The op converts between float and integers at an input or output of the model.",
        "use integer inputs and outputs: edgepack build writes them, and the loader quantizes in the app",
    ),
    ReasonKind(
        "forbidden-axis",
        "The op works along an axis that the accelerator does not support (the batch axis, for example).",
        "move the data to another axis with a transpose, or do this step in the app",
    ),
    ReasonKind(
        "fused-activation",
        "The accelerator does not support the activation fused into the op.",
        "use a separate activation layer, or an activation that the message names",
    ),
    ReasonKind(
        "min-runtime-version",
        "The file's min_runtime_version is newer than the compiler's parser; a warning only, some such files compile.",
        "check the ops with the reason version or parser-version; if there are none, compile and see",
    ),
    ReasonKind(
        "missing-kernel",
        "Neither the accelerator nor the LiteRT runtime has a kernel for the op with these tensors.",
        "replace the layer by built-in ops, or quantize to int8 instead",
    ),
    ReasonKind("multiple", "A quantity must be a multiple of a number.", "pad the dimension up to the next multiple"),
    ReasonKind(
        "nonzero-constant",
        "A constant input must be all zeros.",
        "add the constant with another layer, or pad instead of concatenating",
    ),
    ReasonKind(
        "not-constant",
        "An input must be a constant of the file but is computed at run time.",
        "make it a constant of the model (weights, axes, sizes and paddings that do not depend on the input)",
    ),
    ReasonKind(
        "not-one-dimensional",
        "A tensor may be larger than 1 only along its last dimension.",
        "flatten the tensor before the layer, or use a 1x1 convolution instead of a dense layer on a feature map",
    ),
    ReasonKind(
        "op-not-supported",
        "The accelerator does not support the op.",
        "replace the layer by ops of the target's table, or move it to the end of the model, where it splits nothing",
    ),
    ReasonKind("option-value", "One of the op's options has a value that the accelerator does not support.", _LAYER),
    ReasonKind(
        "outside-partition",
        "The op is supported but is outside the partition that runs on the accelerator.",
        "replace or move the op that the message names; this op then runs on the accelerator",
    ),
    ReasonKind(
        "parameter-dtype",
        "Axes, sizes, indices or paddings have a data type that the accelerator does not support.",
        "use 32-bit integers for shapes, axes and indices in the model",
    ),
    ReasonKind(
        "parser-version",
        "The op's version is newer than the compiler's parser knows, and the compiler refuses the whole file.",
        "avoid the feature that raised the version (grouped convolution, more than four dimensions, newer data types)",
    ),
    ReasonKind(
        "partition-too-small",
        "The partition is smaller than the delegate's minimum.",
        "the ops are supported; replace unsupported neighbours so that the partition grows",
    ),
    ReasonKind(
        "per-channel-data",
        "An activation is quantized per channel; the accelerator supports one scale per tensor.",
        "quantize again with edgepack build, which uses one scale per activation",
    ),
    ReasonKind(
        "per-channel-weights",
        "Weights are quantized per channel where the accelerator supports one scale per tensor.",
        "quantize with edgepack build, or disable per-channel quantization of dense layers",
    ),
    ReasonKind(
        "permutation",
        "The accelerator does not support this transpose.",
        "use a supported permutation, or two transposes",
    ),
    ReasonKind(
        "producer",
        "On this accelerator, the op's input must be the output of certain ops.",
        "compute the input with one of the ops that the message names",
    ),
    ReasonKind(
        "rank-above-N",
        "A tensor has more dimensions than the accelerator supports; some targets count only those larger than 1.",
        "merge or split dimensions with a reshape, and use batch size 1",
    ),
    ReasonKind(
        "requantizes",
        "Inputs and outputs must share one scale and zero point.",
        "quantize with edgepack build, which uses one range for them",
    ),
    ReasonKind(
        "runtime-version",
        "The op needs a newer runtime than the one that the file is compiled for.",
        "compile for a newer runtime with --runtime-version, and install it on the device",
    ),
    ReasonKind(
        "several-subgraphs",
        "The file has more than one subgraph; only the first can run on an accelerator.",
        "unroll loops and conditions in the model, or split it into several models",
    ),
    ReasonKind(
        "shape-mismatch", "Tensors of the op that must have the same shape differ.", "reshape them in the model"
    ),
    ReasonKind(
        "sparse-weights", "Weights are stored sparse.", "convert without sparsity; pruned weights may stay zero"
    ),
    ReasonKind(
        "state-on-host",
        "The op reads, assigns or initializes a variable, which stays on the host: the compiler does not see it.",
        "no action needed: the other ops run on the accelerator",
    ),
    ReasonKind(
        "unquantized",
        "A tensor has no scale where the accelerator needs one.",
        "quantize the whole model: edgepack build MODEL -t TARGET --samples SRC",
    ),
    ReasonKind(
        "left-by-compiler",
        "From the compiler: it left the op in the compiled file without a reason.",
        "see the check's reason for the op; if there is none, report the model as an issue",
    ),
    ReasonKind(
        "unknown-status",
        "From the compiler: it gave a reason that edgepack does not know yet.",
        "see the compiler's message beside it, and report that as an issue",
    ),
    ReasonKind(
        "unspecified-limitation",
        "From the compiler: it supports the op, but something about this one is outside its limits.",
        "see the check's reason for the op; if there is none, use a smaller or simpler form of the layer",
    ),
    ReasonKind("unequal", "Two quantities must be equal.", _LAYER),
    ReasonKind(
        "version",
        "The accelerator does not support the op's version.",
        "quantize with edgepack build, which writes the lowest version that the op needs, or avoid what raised it",
    ),
    ReasonKind(
        "weights-dtype",
        "Weights have a data type that the accelerator does not support.",
        "quantize to a scheme of this target: edgepack build MODEL -t TARGET",
    ),
)


def limit_code(quantity: str) -> str:
    """Return the reason code of a quantity outside its range."""
    return f"limit-{quantity.replace('_', '-')}"


#: All codes, sorted.
REASONS: Mapping[str, ReasonKind] = {
    kind.code: kind
    for kind in sorted(
        (
            *_KINDS,
            *(
                ReasonKind(limit_code(name), f"Out of range: {text}.", _LIMIT_FIXES.get(name, _LAYER))
                for name, text in QUANTITIES.items()
            ),
        ),
        key=lambda kind: kind.code,
    )
}


def reason(code: str, message: str, *, fix: str = "") -> Reason:
    """Return a reason, with the table's fix unless `fix` is a better one for the case.

    Raises:
        KeyError: The code is not in the table, which is a bug in a rule.
    """
    kind = REASONS[re.sub(r"\d+$", "N", code) if code.startswith("rank-above-") else code]
    return Reason(code, message, fix or kind.fix)
