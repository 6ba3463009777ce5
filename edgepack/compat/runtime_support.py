"""Ops that the LiteRT runtime cannot run on the host: Select TensorFlow ops, custom ops, types without kernels."""

from collections.abc import Mapping

from edgepack.compat.context import Context, tensors
from edgepack.compat.reasons import reason
from edgepack.findings import Reason
from edgepack.graph import Op
from edgepack.graph.custom_ops import COMPILED_OPS, RUNTIME_OPS

#: Custom ops that another runtime registers, with that runtime. The loaders of a bundle use LiteRT, which refuses them.
_REGISTERED_ELSEWHERE: Mapping[str, str] = {
    "Convolution2DTransposeBias": "MediaPipe",
    "Landmarks2TransformMatrix": "MediaPipe",
    "MaxPoolingWithArgmax2D": "MediaPipe",
    "MaxUnpooling2D": "MediaPipe",
    "PosenetDecoderOp": "Coral's posenet library",
    "Resampler": "MediaPipe",
    "TransformLandmarks": "MediaPipe",
    "TransformTensorBilinear": "MediaPipe",
}

#: Activation types without kernels in the runtime.
_NO_KERNELS = frozenset({"INT2", "INT4", "UINT4"})


def custom_reason(op: Op) -> tuple[Reason, bool] | None:
    """Return why a custom op is not on an accelerator, and whether LiteRT runs it on the CPU; None for builtin ops."""
    if op.name != "CUSTOM":
        return None
    code = op.custom_code
    if code.startswith("Flex"):
        return reason("flex-op", f"expected a built-in op, got the Select TensorFlow op {code}"), False
    if code in COMPILED_OPS:
        message = f"expected uncompiled ops, got a part that {COMPILED_OPS[code]} compiled ({code})"
        return reason("compiled-elsewhere", message), False
    if code in RUNTIME_OPS:
        return reason("custom-op-registered", f"expected a built-in op, got {code}, which LiteRT runs on the CPU"), True
    if code in _REGISTERED_ELSEWHERE:
        message = (
            f"expected a built-in op, got {code}, which {_REGISTERED_ELSEWHERE[code]} registers and LiteRT does not"
        )
        return reason("custom-op-elsewhere", message), False
    return reason("custom-op", f"expected a built-in op, got the custom op {code or 'without a name'}"), False


def missing_kernel(context: Context, op: Op) -> Reason | None:
    """Return why the runtime's own kernels cannot run a builtin op, None when they can."""
    if op.name.startswith("BUILTIN_"):
        return reason("missing-kernel", f"expected an op of the TFLite schema, got the operator code {op.name[8:]}")
    for name, tensor in tensors(context.graph, op, "data"):
        if tensor.dtype in _NO_KERNELS and not tensor.is_constant:
            message = f"expected a data type with kernels in the runtime for {name}, got {tensor.dtype}"
            return reason("missing-kernel", message)
    return None
