"""A float .tflite graph in TensorFlow: batched, differentiable, with replaceable constants and activations."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import QuantizationError
from edgepack.graph import NUMPY_DTYPES, Model, Op, Tensor, read_model
from edgepack.quantize.ptq.lowering.boundary import BoundaryRuntime
from edgepack.quantize.ptq.lowering.call import Call, NotLoweredError, TfTensor, Value
from edgepack.quantize.ptq.lowering.control import initial_values
from edgepack.quantize.ptq.lowering.lazy import tf
from edgepack.quantize.ptq.lowering.table import execute

#: Called with each float activation, returns what its consumers receive.
Transform = Callable[[int, TfTensor], TfTensor]


class LoweredModel:
    """The main graph of a float model, op by op in TensorFlow.

    An op without a counterpart in TensorFlow is a boundary: the runtime computes its results from the inputs of the
    graph, and no gradient passes through it. State starts at its initial value in every run.

    Args:
        tflite: A float .tflite or what it contains; boundaries can only be computed from a file.

    Attributes:
        model: What the file contains.
        graph: Its main graph.
        names: Name of each input, in file order.
        constants: Values of the float constants, by tensor index.
        boundaries: Why an op is not lowered, by op index.
        shapes: Shape of one sample of each activation that `run` returns, as in the file.

    Raises:
        ModelFileError: The file is corrupt.
    """

    def __init__(self, tflite: bytes | Model) -> None:
        self.model = read_model(tflite) if isinstance(tflite, bytes) else tflite
        self.graph = self.model.main
        self.names = self.model.input_names()
        self._runtime = BoundaryRuntime(tflite, self.model) if isinstance(tflite, bytes) else None
        self._fixed = initial_values(self.graph)
        self.constants: dict[int, npt.NDArray[Any]] = {
            index: value.tensor for index, value in self._fixed.items() if value.tensor.dtype.kind == "f"
        }
        self.boundaries: dict[int, str] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self._derived: dict[int, tuple[int, ...]] = {}
        self._fold_constants()
        self._find_boundaries()

    def stack(self, samples: Sequence[Mapping[str, npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
        """Return samples as one array per graph input, (samples, *shape in the file).

        Args:
            samples: Arrays by input name, with or without the file's batch dimension of 1.
        """
        shapes = [self.graph.tensors[index].shape for index in self.graph.inputs]
        return [
            np.stack([np.reshape(sample[name], shape) for sample in samples])
            for name, shape in zip(self.names, shapes, strict=True)
        ]

    def run(
        self,
        inputs: Mapping[str | int, Any],
        *,
        constants: Mapping[int, TfTensor] | None = None,
        transform: Transform | None = None,
        start: Mapping[int, TfTensor] | None = None,
        stop: Collection[int] | None = None,
    ) -> dict[int, TfTensor]:
        """Run a batch, eagerly or inside a `tf.function`.

        Args:
            inputs: Values of the graph's inputs by name or tensor index, (samples, *shape in the file); where the
                file's axis 0 is 1, (samples, *shape[1:]) as well. May lack those that the needed ops do not depend on.
            constants: Replacements of constants (trainable weights), by tensor index, in the file's shape.
            transform: Called with the index and value of each input and each op's result, where they are floating
                point and depend on the inputs; returns the value that consumers receive.
            start: Values of activations by tensor index, (samples, *shape), which are passed to their consumers as
                they are, without `transform`. Ops before them only run where others need them.
            stop: Tensor indices that are needed; None for all that can be computed from `inputs` and `start`.

        Returns:
            By tensor index, (samples, *shape in the file): `stop`, or all activations that depend on the inputs.

        Raises:
            ValueError: A needed value is missing or has the wrong shape.
            UnfitModelError: The runtime cannot compute a boundary.
        """
        replaced, values = dict(constants or {}), self._given(inputs)
        fixed = self._constants_with(replaced)
        given = {index: tf.convert_to_tensor(value) for index, value in (start or {}).items()}
        batch = _batch([*given.values(), *values.values()])
        ops = self._needed_ops(stop, {*given, *values, *fixed}, whole=len(values) == len(self.graph.inputs))
        edges = self._boundary_values(ops, values, {*given})
        results: dict[int, TfTensor] = {}
        state = {**fixed, **{index: Value(tensor, True) for index, tensor in given.items()}}
        results.update(given)

        def keep(index: int, value: Value) -> None:
            if index in given:
                return
            if value.batched and transform is not None and value.tensor.dtype.is_floating:
                value = Value(transform(index, value.tensor), True)
            state[index] = value
            if value.batched:
                results[index] = value.tensor

        for index, tensor in values.items():
            keep(index, Value(tensor, True))
        for op in ops:
            if op.index in self.boundaries:
                computed = [(index, edges[index]) for index in op.outputs if index in edges]
            else:
                computed = list(zip(op.outputs, self._execute(op, state, batch), strict=True))
            for index, value in computed:
                if index >= 0:
                    keep(index, value)
        if stop is None:
            return results
        return {index: _repeated(state[index], batch) for index in stop}

    def boundary_values(self, inputs: Mapping[str | int, Any], indices: Collection[int]) -> dict[int, TfTensor]:
        """Return activations computed by the runtime, for the `start` of a run; arguments as those of `run`."""
        values = self._runtime_values(self._given(inputs), sorted(indices))
        return {index: value.tensor for index, value in values.items()}

    # -- preparation ---------------------------------------------------------------------------------------------------

    def _fold_constants(self) -> None:
        """Compute what depends on constants only, once."""
        for op in self.graph.ops:
            operands = [index for index in op.inputs if index >= 0]
            if not operands or not all(index in self._fixed for index in operands):
                continue
            try:
                values = self._execute(op, self._fixed, 1)
            except NotLoweredError:
                continue
            self._fixed.update({index: value for index, value in zip(op.outputs, values, strict=True) if index >= 0})
            self._derived[op.index] = tuple(index for index in op.outputs if index >= 0)

    def _find_boundaries(self) -> None:
        """Trace the graph once, without computing it, to find the ops that have to be boundaries."""
        tensors = [self.graph.tensors[index] for index in self.graph.inputs]
        specs = [tf.TensorSpec([None, *t.shape], NUMPY_DTYPES[t.dtype]) for t in tensors if t.dtype in NUMPY_DTYPES]

        def trace(*values: TfTensor) -> TfTensor:
            state = dict(self._fixed)
            known = [t.index for t in tensors if t.dtype in NUMPY_DTYPES]
            state.update({index: Value(value, True) for index, value in zip(known, values, strict=True)})
            batch = tf.shape(values[0])[0] if values else 1
            for op in self.graph.ops:
                if op.index in self._derived:
                    continue
                results: list[Value | None] = []
                try:
                    executed = self._execute(op, state, batch)
                    self._compare_with_file(op, executed)
                    results.extend(executed)
                except (NotLoweredError, ValueError, TypeError, LookupError, tf.errors.OpError) as error:
                    self.boundaries[op.index] = str(error).splitlines()[0] if str(error) else type(error).__name__
                    results = [self._boundary_example(index, batch) for index in op.outputs]
                state.update({i: v for i, v in zip(op.outputs, results, strict=True) if i >= 0 and v is not None})
            for index, value in state.items():
                if value.batched:
                    self.shapes[index] = tuple(value.tensor.shape.as_list()[1:])
            return tf.constant(0)

        tf.function(trace, autograph=False).get_concrete_function(*specs)

    def _compare_with_file(self, op: Op, results: list[Value]) -> None:
        """Raise where a result has another type or shape than the file states."""
        for index, value in zip(op.outputs, results, strict=True):
            if index < 0:
                continue
            tensor = self.graph.tensors[index]
            dtype = NUMPY_DTYPES.get(tensor.dtype)
            actual = value.static.dtype if value.static is not None else value.tensor.dtype.as_numpy_dtype
            if dtype is None or np.dtype(actual) != dtype:
                raise NotLoweredError(f"{op.label} gives {actual}, the file states {tensor.dtype}")
            shape = value.static.shape if value.static is not None else value.tensor.shape.as_list()[value.batched :]
            if None in shape:
                raise NotLoweredError(f"the shape of the result of {op.label} depends on the sample")
            if tensor.shape and not tensor.is_dynamic and tuple(shape) != tensor.shape:
                raise NotLoweredError(f"{op.label} gives {list(shape)}, the file states {list(tensor.shape)}")

    def _boundary_example(self, index: int, batch: Any) -> Value | None:
        """Return a stand-in for a boundary's result; None where its shape or type is not fixed."""
        tensor = self.graph.tensors[index]
        if index < 0 or not _has_fixed_shape(tensor) or tensor.dtype not in NUMPY_DTYPES:
            return None
        return Value(tf.zeros([batch, *tensor.shape], NUMPY_DTYPES[tensor.dtype]), True)

    # -- parts of a run ------------------------------------------------------------------------------------------------

    def _execute(self, op: Op, state: Mapping[int, Value], batch: Any) -> list[Value]:
        missing = [index for index in op.inputs if index >= 0 and index not in state]
        if missing:
            raise NotLoweredError(f"{op.label} needs tensor {missing[0]}, whose shape or type is not fixed")
        operands = tuple(state[index] if index >= 0 else None for index in op.inputs)
        call = Call(op, operands, self.graph.op_inputs(op), self.graph.op_outputs(op), batch, self.model.graphs)
        return execute(call)

    def _given(self, inputs: Mapping[str | int, Any]) -> dict[int, TfTensor]:
        """Return the graph's inputs by tensor index, with the samples' axis."""
        by_name = dict(zip(self.names, self.graph.inputs, strict=True))
        given = {}
        for key, value in inputs.items():
            index = by_name.get(key, -1) if isinstance(key, str) else key
            if index not in self.graph.inputs:
                raise ValueError(f"the model has no input {key!r}")
            tensor = self.graph.tensors[index]
            value = tf.convert_to_tensor(value, NUMPY_DTYPES[tensor.dtype])
            if value.shape.rank == tensor.rank and tensor.shape[:1] == (1,):
                value = tf.expand_dims(value, 1)
            if value.shape.rank != tensor.rank + 1:
                raise ValueError(f"input {key!r}: expected (samples, {tensor.shape}), got {value.shape}")
            given[index] = value
        return {index: given[index] for index in self.graph.inputs if index in given}

    def _constants_with(self, replaced: Mapping[int, TfTensor]) -> dict[int, Value]:
        """Return constants by index: replaced ones, and without what was computed from those."""
        if not replaced:
            return self._fixed
        stale: set[int] = set()
        for op in self.graph.ops:
            if op.index in self._derived and not stale.union(replaced).isdisjoint(op.inputs):
                stale.update(self._derived[op.index])
        fixed = {index: value for index, value in self._fixed.items() if index not in stale}
        fixed.update({index: Value(tf.convert_to_tensor(value)) for index, value in replaced.items()})
        return fixed

    def _needed_ops(self, stop: Collection[int] | None, known: Collection[int], *, whole: bool) -> list[Op]:
        """Return the ops to execute, in file order.

        Args:
            stop: As in `run`.
            known: Tensors whose values are known.
            whole: True when all inputs of the graph are known, so that boundaries can be computed.
        """
        reached, possible = set(known), set()
        for op in self.graph.ops:
            outputs = {index for index in op.outputs if index >= 0}
            if op.index in self.boundaries:
                # What no op needs may have a shape that depends on the sample.
                outputs = {index for index in outputs if index in self.shapes}
                possible_now = whole and bool(outputs)
            else:
                possible_now = all(index in reached for index in op.inputs if index >= 0)
            if possible_now and not outputs <= set(known):
                possible.add(op.index)
                reached |= outputs
        if stop is None:
            return [op for op in self.graph.ops if op.index in possible]
        missing = [index for index in stop if index not in reached]
        if missing:
            name = self.graph.tensors[missing[0]].name
            raise ValueError(f"tensor {missing[0]} ('{name}') cannot be computed from the given inputs and activations")
        needed, ops = set(stop), []
        for op in reversed(self.graph.ops):
            if op.index in possible and not needed.difference(known).isdisjoint(op.outputs):
                ops.append(op)
                if op.index not in self.boundaries:
                    needed.update(index for index in op.inputs if index >= 0)
        return ops[::-1]

    def _boundary_values(
        self, ops: Iterable[Op], inputs: Mapping[int, TfTensor], given: Collection[int]
    ) -> dict[int, Value]:
        """Return the results of the boundaries among the ops."""
        wanted = [
            index
            for op in ops
            if op.index in self.boundaries
            for index in op.outputs
            if index in self.shapes and index not in given
        ]
        return self._runtime_values(inputs, wanted) if wanted else {}

    def _runtime_values(self, inputs: Mapping[int, TfTensor], indices: list[int]) -> dict[int, Value]:
        if self._runtime is None:
            raise QuantizationError(f"tensor {indices[0]} needs the runtime, and only the model's description is given")
        runtime = self._runtime
        types = [NUMPY_DTYPES[self.graph.tensors[index].dtype] for index in indices]

        def compute(*arrays: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
            return runtime.run(arrays, indices)

        tensors = tf.numpy_function(compute, list(inputs.values()), types)
        values = {}
        # A list of one type gives one tensor, not a list.
        for index, tensor in zip(indices, tensors if isinstance(tensors, list) else [tensors], strict=True):
            values[index] = Value(tf.ensure_shape(tensor, [None, *self.graph.tensors[index].shape]), True)
        return values


def _batch(tensors: list[TfTensor]) -> Any:
    """Return the number of samples: an integer where it is known while the graph is traced."""
    if not tensors:
        return 1
    size = tensors[0].shape[0]
    return tf.shape(tensors[0])[0] if size is None else int(size)


def _has_fixed_shape(tensor: Tensor) -> bool:
    """Return whether a tensor has the file's shape for every sample, as far as the file states it.

    A file with an open batch has -1 along axis 0 of every activation, and is run with the batch 1 of its shapes.
    """
    fixed = all(size >= 0 for size in tensor.shape_signature[1:])
    return tensor.has_rank and fixed and (not tensor.is_dynamic or tensor.shape[0] == 1)


def _repeated(value: Value, batch: Any) -> TfTensor:
    if value.batched:
        return value.tensor
    tensor = tf.convert_to_tensor(value.tensor)
    return tf.broadcast_to(tensor[None], [batch, *tensor.shape])
