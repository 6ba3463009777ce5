"""Custom ops that compilers write into .tflite files, and those that the LiteRT runtime registers itself."""

from collections.abc import Mapping

from edgepack.graph.model import Model

#: The part of a model that `edgetpu_compiler` compiled for the Edge TPU.
EDGETPU_OP = "edgetpu-custom-op"

#: Custom ops that hold a compiled part of a model, with the compiler. Such a file runs on that accelerator only.
#: Sources: LiteRT (litert/core/dispatch_op_schema), ethos_u_core_driver (ETHOSU_CUSTOM_NAME), NXP's eIQ Neutron
#: converter, VeriSilicon's tflite-vx-delegate (kNbgCustomOp).
COMPILED_OPS: Mapping[str, str] = {
    EDGETPU_OP: "Coral's edgetpu_compiler",
    "DISPATCH_OP": "a chip vendor's plugin of LiteRT",
    "ethos-u": "Arm's Vela",
    "NeutronGraph": "NXP's eIQ Neutron converter",
    "vsi-npu": "VeriSilicon's TIM-VX",
}

#: Custom ops that the LiteRT runtime of this machine and of the bundles' loaders registers by default
#: (tensorflow/lite/core/kernels/register.cc).
RUNTIME_OPS = frozenset({"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"})


def custom_codes(model: Model) -> tuple[str, ...]:
    """Return the names of a model's custom ops, of all its graphs, in alphabetical order."""
    return tuple(sorted({op.custom_code for graph in model.graphs for op in graph.ops if op.name == "CUSTOM"}))


def compiled_by(model: Model) -> str:
    """Return the compiler that made parts of a file, empty for a file that no compiler has changed."""
    return next((COMPILED_OPS[code] for code in custom_codes(model) if code in COMPILED_OPS), "")
