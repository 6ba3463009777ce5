"""Every reason code, its meaning and its fix: the table behind messages and docs/reference/reasons.md."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgepack.findings import Reason
from edgepack.profiles.vocabulary import QUANTITIES


@dataclass(frozen=True)
class ReasonKind:
    """One code.

    Attributes:
        code: Stable identifier; `N` stands for a number in the codes that carry one (`rank-above-3`).
        meaning: When it is given, one sentence.
        fix: What the user can do.
    """

    code: str
    meaning: str
    fix: str


_SMALLER = "make it smaller in the model's layer, or split the layer in two"
_LAYER = "change the layer's setting in the model and convert again"

#: Fix of `limit-*` by quantity; the others have the layer's fix.
_LIMIT_FIXES = {
    "aligned_resize_factor_h": "resize in several steps, each within the limit",
    "aligned_resize_factor_w": "resize in several steps, each within the limit",
    "arch": "give the chip with --soc, or build for one that has it",
    "batch": "convert the model with batch size 1 and run it once per sample",
    "bias_bits": "calibrate with samples of the real range: a bias this large comes from a very small scale",
    "cell_clip": "build the LSTM without cell clipping",
    "constant_inputs": "swap or fold the constants in the model so that the op has the inputs the accelerator takes",
    "dimension": _SMALLER,
    "groups": "replace the grouped convolution by a split, one convolution per group and a concatenation",
    "input_area": _SMALLER,
    "input_elements": _SMALLER,
    "input_rank": "reshape the tensor to the rank that is taken before this layer",
    "inputs": "chain several ops with fewer inputs each",
    "kernel_area": _SMALLER,
    "kernel_h": _SMALLER,
    "kernel_w": _SMALLER,
    "output_elements": _SMALLER,
    "output_rank": "reshape the tensor to the rank that is taken after this layer",
    "reduced_elements": "reduce in two steps",
    "resize_factor_h": "resize in several steps, each within the limit",
    "resize_factor_w": "resize in several steps, each within the limit",
    "runtime_inputs": "make the other inputs constant, or compute this layer outside the model",
    "runtime_version": "compile for a newer runtime with --runtime-version, and install that runtime on the device",
    "pad_h": "use padding VALID, or a layer that pads before this one",
    "pad_w": "use padding VALID, or a layer that pads before this one",
    "slice_stride": "slice with stride 1, or replace the strided slice by a pooling layer with that stride",
    "slice_stride_c": "slice the channels with stride 1, or move the axis with a transpose before",
    "slice_stride_min": "slice forwards, and reverse in the app",
    "soc_float16": "quantize to int8, or give a chip that computes in float16 with --soc",
    "stride_h": "use a smaller stride, or a pooling layer for the rest of it",
    "stride_w": "use a smaller stride, or a pooling layer for the rest of it",
    "weights_abs_sum": "use fewer input channels or a smaller kernel",
}

_KINDS = (
    ReasonKind(
        "batch", "The file's batch size is not the one the target runs.", "convert the model with that batch size"
    ),
    ReasonKind(
        "bias-dtype",
        "The bias has a data type the accelerator does not take.",
        "quantize with edgepack build, which writes the bias type the target takes",
    ),
    ReasonKind(
        "broadcast",
        "The shapes of the op's inputs do not fit together as the accelerator needs.",
        "reshape or tile the smaller input in the model so that the shapes agree",
    ),
    ReasonKind(
        "built-in-kernel",
        "On a CPU: the op has no fast kernel (XNNPACK) and runs on the built-in one, which computes the same.",
        "nothing has to be done; if the op takes much of the time, use a layer that the fast kernels have",
    ),
    ReasonKind(
        "builtin-code",
        "The compiler's parser does not know this op at all and refuses the whole file.",
        "replace the layer by older ops; TensorFlow 2.6 or older knows what the parser knows",
    ),
    ReasonKind(
        "compile-refused",
        "The op is fine, but the compiler refuses the whole file because of another one.",
        "mend the op that is named",
    ),
    ReasonKind(
        "compiled-elsewhere",
        "The file was compiled for another accelerator.",
        "give the model as it was before that compiler ran",
    ),
    ReasonKind(
        "constant-input",
        "An input is constant that the accelerator needs as an activation.",
        "fold the constant: compute the layer's result once and store it in the model",
    ),
    ReasonKind(
        "consumer",
        "The op's result may only go to certain ops on this accelerator.",
        "let one of the named ops, and nothing else, read the result",
    ),
    ReasonKind(
        "custom-op",
        "A custom op that no runtime knows by itself.",
        "replace the layer by built-in ops, or ship a runtime that registers the op",
    ),
    ReasonKind(
        "custom-op-registered",
        "A custom op that only certain runtimes register; it runs on their CPU.",
        "use the runtime that is named, or cut the op off and do its work in the app",
    ),
    ReasonKind(
        "dtype",
        "A tensor has a data type the accelerator does not take.",
        "quantize to a scheme of this target: edgepack build MODEL -t TARGET",
    ),
    ReasonKind(
        "dtype-float",
        "A floating-point tensor where the accelerator takes integers only.",
        "quantize the model: edgepack build MODEL -t TARGET --samples SRC",
    ),
    ReasonKind(
        "dtype-wide-integer",
        "An index or a count in 64 bits where the accelerator takes 32.",
        "make it int32 in the model: output_type=tf.int32 of tf.argmax, dtype of tf.range and tf.shape, else tf.cast",
    ),
    ReasonKind(
        "dtype-quantized",
        "A quantized tensor where the accelerator takes the op in floating point only.",
        "use a floating-point scheme of the target for the model, or leave this op to the app",
    ),
    ReasonKind(
        "dtype-mismatch",
        "Tensors of the op that must have one data type differ.",
        "quantize the whole model with one scheme, or cast in the model",
    ),
    ReasonKind(
        "dtype-pair",
        "The op goes from one data type to another in a way the accelerator does not.",
        "cast outside the model, or to one of the types named",
    ),
    ReasonKind(
        "dynamic-shape",
        "A dimension is known only when the model runs.",
        "fix it: edgepack build MODEL --input-shape NAME=1,224,224,3; a batch becomes 1 by itself",
    ),
    ReasonKind(
        "flex-op",
        "An op of Select TensorFlow, which the LiteRT runtime does not have.",
        "replace the layer by built-in ops and convert without SELECT_TF_OPS",
    ),
    ReasonKind(
        "float-io",
        "The op stands between float and integers at the model's edge.",
        "give the file integer inputs and outputs; edgepack build does so, and the loader scales in the app",
    ),
    ReasonKind(
        "forbidden-axis",
        "The op works along an axis the accelerator leaves alone (the batch axis, say).",
        "move the data to another axis with a transpose, or do this step in the app",
    ),
    ReasonKind(
        "fused-activation",
        "The activation fused into the op is not taken.",
        "put the activation into a layer of its own, or use one of those named",
    ),
    ReasonKind(
        "min-runtime-version",
        "The file says it needs a newer runtime than the compiler's parser is; a hint, some such files compile.",
        "look at the ops with a version reason; without any, compile and see",
    ),
    ReasonKind(
        "missing-kernel",
        "Neither the accelerator nor the LiteRT runtime can run the op with these tensors.",
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
        "An input must be stored in the file but is computed while the model runs.",
        "make it a constant of the model (weights, axes, sizes and paddings that do not depend on the input)",
    ),
    ReasonKind(
        "not-one-dimensional",
        "A tensor may be larger than 1 only along its last dimension.",
        "flatten the tensor before the layer, or use a 1x1 convolution instead of a dense layer on a map",
    ),
    ReasonKind(
        "op-not-supported",
        "The accelerator has no such op.",
        "replace the layer by ops of the target's table, or move it to the end of the model, where it cuts nothing off",
    ),
    ReasonKind("option-value", "One of the op's options has a value the accelerator does not take.", _LAYER),
    ReasonKind(
        "outside-partition",
        "The op is fine in itself but stands outside the group that the accelerator takes.",
        "mend or move the op that is named; then this one follows",
    ),
    ReasonKind(
        "parameter-dtype",
        "Axes, sizes, indices or paddings have a data type the accelerator does not take.",
        "use 32-bit integers for shapes, axes and indices in the model",
    ),
    ReasonKind(
        "parser-version",
        "The compiler's parser knows the op only up to an older version and refuses the whole file.",
        "avoid what raised the op's version (grouped convolution, more than four dimensions, newer data types)",
    ),
    ReasonKind(
        "partition-too-small",
        "The group of ops is smaller than the delegate takes.",
        "nothing is wrong with the ops; mend their neighbours so that the group grows",
    ),
    ReasonKind(
        "per-channel-data",
        "An activation has a scale per channel; the accelerator takes one scale per tensor.",
        "quantize again with edgepack build, which gives activations one scale",
    ),
    ReasonKind(
        "per-channel-weights",
        "Weights have a scale per channel where the accelerator takes one scale per tensor.",
        "quantize with edgepack build, or with per-channel quantization of dense layers switched off",
    ),
    ReasonKind(
        "permutation", "The transpose's order of axes is not taken.", "use an order that is taken, or two transposes"
    ),
    ReasonKind(
        "producer",
        "The op's input must come from certain ops on this accelerator.",
        "compute the input in the model with one of the named ops",
    ),
    ReasonKind(
        "rank-above-N",
        "A tensor has more dimensions (larger than 1, where the target counts those) than the accelerator takes.",
        "merge or split dimensions with a reshape, and use batch size 1",
    ),
    ReasonKind(
        "requantizes",
        "Inputs and outputs must share one scale and zero point.",
        "quantize with edgepack build, which gives them one range",
    ),
    ReasonKind(
        "runtime-version",
        "The op needs a newer runtime than the one compiled for.",
        "compile for a newer runtime with --runtime-version, and install it on the device",
    ),
    ReasonKind(
        "several-subgraphs",
        "The file has more than one subgraph; only the first is placed on an accelerator.",
        "unroll loops and conditions in the model, or split it into several models",
    ),
    ReasonKind("shape-mismatch", "Tensors of the op that must have one shape differ.", "reshape them in the model"),
    ReasonKind(
        "sparse-weights", "Weights are stored sparse.", "convert without sparsity; pruned weights may stay zeros"
    ),
    ReasonKind(
        "unquantized",
        "A tensor has no scale where the accelerator needs one.",
        "quantize the whole model: edgepack build MODEL -t TARGET --samples SRC",
    ),
    ReasonKind(
        "left-by-compiler",
        "A compiler's own: it left the op in the compiled file and does not say why.",
        "read the check's reason for the op; where the check has none, report the model as an issue",
    ),
    ReasonKind(
        "unknown-status",
        "A compiler's own: it gave a reason that edgepack does not know yet.",
        "read the compiler's words beside it, and report them as an issue",
    ),
    ReasonKind(
        "unspecified-limitation",
        "A compiler's own: the op is of a kind it takes, but something about this one is outside its limits.",
        "read the check's reason for the op; where the check has none, use a smaller or simpler form of the layer",
    ),
    ReasonKind("unequal", "Two quantities must be equal.", _LAYER),
    ReasonKind(
        "version",
        "The op's version is not one the accelerator takes.",
        "quantize with edgepack build, which writes the version the op really needs, or avoid what raised it",
    ),
    ReasonKind(
        "weights-dtype",
        "Weights have a data type the accelerator does not take.",
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
    """Return a reason with the table's fix, unless the case has a better one.

    Raises:
        KeyError: The code is not in the table: a mistake in a rule.
    """
    kind = REASONS[re.sub(r"\d+$", "N", code) if code.startswith("rank-above-") else code]
    return Reason(code, message, fix or kind.fix)
