"""Ops that the LiteRT runtime cannot run on the host: Select TensorFlow ops, custom ops, types without kernels."""

from collections.abc import Mapping

from edgepack.compat.context import Context, tensors
from edgepack.compat.reasons import reason
from edgepack.findings import Reason
from edgepack.graph import Op
from edgepack.graph.custom_ops import EDGETPU_OP

#: Custom ops that a known runtime registers, with that runtime.
_REGISTERED: Mapping[str, str] = {
    "AudioSpectrogram": "the LiteRT runtime",
    "Convolution2DTransposeBias": "MediaPipe's runtime",
    "MaxPoolingWithArgmax2D": "MediaPipe's runtime",
    "MaxUnpooling2D": "MediaPipe's runtime",
    "Mfcc": "the LiteRT runtime",
    "NumericVerify": "the LiteRT runtime",
    "PosenetDecoderOp": "Coral's posenet runtime",
    "Resampler": "MediaPipe's runtime",
    "TFLite_Detection_PostProcess": "the LiteRT runtime",
}

#: Activation types without kernels in the runtime.
_NO_KERNELS = frozenset({"INT2", "INT4", "UINT4"})


def custom_reason(op: Op) -> tuple[Reason, bool] | None:
    """Return why a custom op is not on an accelerator, and whether a known runtime runs it; None for builtin ops."""
    if op.name != "CUSTOM":
        return None
    code = op.custom_code
    if code.startswith("Flex"):
        return reason("flex-op", f"expected a built-in op, got the Select TensorFlow op {code}"), False
    if code == EDGETPU_OP:
        return reason("compiled-elsewhere", "expected uncompiled ops, got a block compiled for the Edge TPU"), False
    if code in _REGISTERED:
        return reason(
            "custom-op-registered", f"expected a built-in op, got {code}, which {_REGISTERED[code]} registers"
        ), True
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
