"""Qualcomm's simulator of the Hexagon tensor processor (HTP), which is in QAIRT's library for x86-64 Linux.

A file that LiteRT's compiler wrote holds one custom op `DISPATCH_OP` for each partition on HTP; its options say where
in the file the partition's context binary is. ONNX Runtime's plugin for QNN loads such a binary from a model of one
`EPContext` node and runs it on the simulator. The ops between the partitions run on the CPU, on LiteRT's runtime.

Qualcomm documents the simulator as a means of development. That it returns the bits of the silicon is stated nowhere.
"""

import importlib.util
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from edgepack._version import installed_version
from edgepack.compilers import qnn_sdk
from edgepack.compilers.qnn_placement import ACCELERATOR_OP
from edgepack.compilers.simulator import Array, SimulatorInfo, require_shapes
from edgepack.errors import ToolMissingError, UnfitModelError
from edgepack.graph import NUMPY_DTYPES, Graph, Op, Tensor, read_model
from edgepack.graph.edit import unpack
from edgepack.graph.external_state import external_state
from edgepack.graph.extract import extract_ops
from edgepack.runtime.initial_state import initial_values
from edgepack.runtime.runner import Runner, model_inputs
from edgepack.text import first_line

NAME = "Qualcomm's HTP simulator"

#: Measured on 28 November 2026 on two cores: 0.06 s for keyword spotting (2.7 million MACs), 0.22 s for MobileNet V1
#: 0.25 at 128 pixels (14 million), 1.6 s for MobileNet V2 at 224 pixels (300 million). These give 0.06, 0.12, 1.55 s.
_SECONDS_PER_MAC = 5e-9
_SECONDS_PER_RUN = 0.05

_PROVIDER = "QNNExecutionProvider"
#: Opsets and IR version of the model around a context binary.
_OPSETS = {"": 18, "com.microsoft": 1}
_IR_VERSION = 9


def find_simulator() -> SimulatorInfo:
    """Return the installed simulator.

    Raises:
        ToolMissingError: A package is not installed, and the message names it; or this is not x86-64 Linux.
    """
    qnn_sdk.require_platform()
    packages = {"onnxruntime_qnn": "onnxruntime-qnn", "onnxruntime": "onnxruntime", "onnx": "onnx"}
    missing = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ToolMissingError(
            f"{NAME} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint=qnn_sdk.INSTALL,
        )
    versions = ", ".join(f"{name} {installed_version(name)}" for name in ("onnxruntime-qnn", "onnxruntime"))
    return SimulatorInfo(
        NAME, f"QAIRT {qnn_sdk.wheel_version() or 'unknown'} ({versions})", _SECONDS_PER_MAC, _SECONDS_PER_RUN
    )


class QnnSimulator:
    """A file of LiteRT's compiler for Qualcomm, loaded into the simulator.

    Args:
        compiled: Bytes of the file.
        architecture: Architecture of the chip (`v73`), empty for the one that the file was compiled for.

    Raises:
        UnfitModelError: The file has partitions inside the body of a loop or a branch, or the simulator refuses one.
    """

    def __init__(self, compiled: bytes, architecture: str = "") -> None:
        model = read_model(compiled)
        if any(op.label == ACCELERATOR_OP for graph in model.graphs[1:] for op in graph.ops):
            raise UnfitModelError(
                "the simulator cannot run a file whose loop or branch is compiled in part",
                hint="build without --simulate, and measure on a phone with edgepack verify --device",
            )
        self._shapes = [info.shape for info in model_inputs(model)]
        outer = external_state(compiled)
        self._initial = {} if outer is None else initial_values(outer)
        self._state = dict(self._initial)
        self._assigned: dict[str, str] = {}
        self._wanted = len(model.main.outputs)
        if outer is not None:
            names = [tensor.name for tensor in model.main.tensors]
            self._assigned = {
                names[outer.reads[variable]]: names[value]
                for variable, value in outer.assigned.items()
                if variable in outer.reads
            }
            model = read_model(outer.tflite)
        self._graph = model.main
        file = unpack(compiled if outer is None else outer.tflite)
        self._steps: list[tuple[tuple[int, ...], tuple[int, ...], Callable[[Sequence[Array]], Sequence[Array]]]] = []
        for accelerated, group in groupby(self._graph.ops, lambda op: op.label == ACCELERATOR_OP):
            ops = list(group)
            if not accelerated:
                part = extract_ops(file, self._graph, [op.index for op in ops])
                self._steps.append((part.inputs, part.outputs, Runner(part.tflite, threads=2).run))
                continue
            for op in ops:
                binary, name = context_binary(compiled, file, op)
                inputs, outputs = _real(op.inputs), _real(op.outputs)
                session = _session(self._graph, inputs, outputs, binary, name, architecture)
                self._steps.append((inputs, outputs, session))

    def run(self, arrays: Sequence[Array], *, keep_state: bool = False) -> list[Array]:
        """Run the file once: see `Simulator.run`."""
        require_shapes(arrays, self._shapes)
        names = {self._graph.tensors[index].name: index for index in self._graph.inputs}
        values = dict(zip(self._graph.inputs, arrays, strict=False))
        state = self._state if keep_state else self._initial
        values |= {names[name]: value for name, value in state.items() if name in names}
        for tensor in self._graph.tensors:
            if tensor.data is not None:
                values[tensor.index] = tensor.data
        for inputs, outputs, run in self._steps:
            values.update(zip(outputs, run([values[index] for index in inputs]), strict=True))
        if self._assigned:
            found = {self._graph.tensors[index].name: value for index, value in values.items()}
            # The value of another variable, which no op of the graph reads, is not among the values.
            found |= {name: value for name, value in state.items() if name not in found}
            self._state = {**state, **{read: found[value] for read, value in self._assigned.items()}}
        return [values[index] for index in self._graph.outputs[: self._wanted]]


def context_binary(compiled: bytes, file: Any, op: Op) -> tuple[bytes, str]:
    """Return the context binary of a partition, and the name of its graph.

    Args:
        compiled: The file's bytes.
        file: The same as the schema's `ModelT`.
        op: A `DISPATCH_OP` of the main graph.

    Raises:
        UnfitModelError: The op's options do not name bytes of the file.
    """
    from flatbuffers import flexbuffers

    options = file.subgraphs[0].operators[op.index].customOptions
    try:
        entries = flexbuffers.Loads(bytes(bytearray(options)))
        start, size, name = int(entries["bytecode_offset"]), int(entries["bytecode_size"]), str(entries["name"])
    except Exception as error:
        raise UnfitModelError(f"partition {op.index}: its options cannot be read: {first_line(error)}") from error
    if start <= 0 or size <= 0 or start + size > len(compiled):
        raise UnfitModelError(f"partition {op.index}: expected a context binary at byte {start}, {size} bytes long")
    return compiled[start : start + size], name


def _session(
    graph: Graph, inputs: Sequence[int], outputs: Sequence[int], binary: bytes, name: str, architecture: str
) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """Return a function that runs a context binary on the simulator."""
    import onnx
    import onnxruntime
    import onnxruntime_qnn

    def info(tensor: Tensor) -> Any:
        dtype = NUMPY_DTYPES.get(tensor.dtype)
        if dtype is None:
            raise UnfitModelError(f"the simulator takes no tensor of type {tensor.dtype} ('{tensor.name}')")
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return onnx.helper.make_tensor_value_info(tensor.name, kind, tensor.shape)

    given, results = ([info(graph.tensors[index]) for index in part] for part in (inputs, outputs))
    node = onnx.helper.make_node(
        "EPContext",
        [entry.name for entry in given],
        [entry.name for entry in results],
        domain="com.microsoft",
        embed_mode=1,
        ep_cache_context=binary,
        main_context=1,
        source="QNN",
        partition_name=name,
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], name, given, results),
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()],
        ir_version=_IR_VERSION,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    settings = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "offload_graph_io_quantization": "0"}
    if architecture:
        settings["htp_arch"] = architecture.removeprefix("v")
    options.add_provider_for_devices(_devices(onnxruntime, onnxruntime_qnn), settings)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as error:
        raise UnfitModelError(f"the simulator does not load the partition '{name}': {first_line(error)}") from error
    names = [entry.name for entry in given]

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        try:
            return list(session.run(None, dict(zip(names, arrays, strict=True))))
        except Exception as error:
            raise UnfitModelError(f"the simulator failed in the partition '{name}': {first_line(error)}") from error

    return run


def _devices(onnxruntime: Any, onnxruntime_qnn: Any) -> list[Any]:
    """Return ONNX Runtime's devices of QNN, whose plugin is registered once in a process."""
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == _PROVIDER]
    if devices:
        return devices
    onnxruntime.register_execution_provider_library(_PROVIDER, onnxruntime_qnn.get_library_path())
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == _PROVIDER]


def _real(tensors: Sequence[int]) -> tuple[int, ...]:
    return tuple(index for index in tensors if index >= 0)
