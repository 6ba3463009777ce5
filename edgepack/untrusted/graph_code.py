"""Detection of code in a SavedModel's parsed protocol buffer, by a list of ops that compute on tensors only.

All nodes of all graphs and of all library functions count, whether something refers to them or not. The saver of every
SavedModel accesses files: its ops pass where only saving, or restoring the model's own variables, reaches them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgepack.untrusted.graph_ops import graph_ops
from edgepack.untrusted.graph_rules import RULES

INIT_SIGNATURE = "__saved_model_init_op"

#: Ops that restore variables; the other ops of the saver write files.
_RESTORE = {"Restore", "RestoreSlice", "RestoreV2"}

#: Ops that pass one input on.
_PASS = {"Identity", "PlaceholderWithDefault", "StopGradient"}

#: Number of inputs before the arguments of the called function.
_CALLS = {
    "PartitionedCall": 0, "StatefulPartitionedCall": 0, "While": 0, "StatelessWhile": 0, "If": 1, "StatelessIf": 1,
    "Case": 1, "StatelessCase": 1,
}  # fmt: skip


def find_graph_code(saved_model: Any) -> list[str]:
    """Return one phrase per op that does more than compute on tensors: its name, what it does, and where it is.

    Args:
        saved_model: A parsed SavedModel message.
    """
    phrases = [phrase for meta_graph in saved_model.meta_graphs for phrase in _Scan(meta_graph).find()]
    return list(dict.fromkeys(phrases))


def asset_files(meta_graph: Any) -> list[Any]:
    """Return the AssetFileDefs of a graph; TensorFlow 1 writes them into a collection.

    Raises:
        DecodeError: The collection holds something else.
    """
    from tensorflow.core.protobuf import meta_graph_pb2

    packed = (
        meta_graph.collection_def["saved_model_assets"].any_list.value
        if ("saved_model_assets" in meta_graph.collection_def)
        else ()
    )
    stored = [meta_graph_pb2.AssetFileDef.FromString(one.value) for one in packed]
    return [*meta_graph.asset_file_def, *stored]


@dataclass
class _Place:
    """The nodes of the graph itself (function None), or of one library function."""

    nodes: list[Any]
    function: Any = None
    by_name: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for node in self.nodes:
            self.by_name[node.name].append(node)

    def describe(self, node: Any) -> str:
        """Return where a node is, for messages."""
        inside = f" of function '{self.function.signature.name}'" if self.function is not None else ""
        return f"node '{node.name}'{inside}"


class _Scan:
    def __init__(self, meta_graph: Any) -> None:
        self._meta = meta_graph
        self._top = _Place(list(meta_graph.graph_def.node))
        self._functions: dict[str, list[_Place]] = defaultdict(list)
        for function in meta_graph.graph_def.library.function:
            self._functions[function.signature.name].append(_Place(list(function.node_def), function))
        self._places = [self._top, *(place for places in self._functions.values() for place in places)]
        self._callers: dict[str, list[tuple[_Place, Any]]] = defaultdict(list)
        for place in self._places:
            for node in place.nodes:
                for name in _called(node):
                    self._callers[name].append((place, node))

    def find(self) -> Iterator[str]:
        """Yield a phrase per refused node."""
        ops = graph_ops()
        for place in self._places:
            for node in place.nodes:
                if node.op in ops.allowed or self._is_call_by_name(node.op):
                    continue
                rule = ops.constrained.get(node.op)
                if rule is None:
                    does = ops.refused.get(node.op, "is not an op of TensorFlow")
                elif rule in RULES:
                    does = RULES[rule](_Attributes(node))
                elif rule == "asset_file":
                    does = "" if self._is_asset(place, node) else "reads a file that is not an asset of the model"
                else:
                    continue
                if does:
                    yield f"{node.op} {does} ({place.describe(node)})"
        yield from self._saver_ops()

    def _is_call_by_name(self, op: str) -> bool:
        # Old graphs call a library function by an op of its name. A name of an op always means the op.
        ops = graph_ops()
        return op in self._functions and op not in ops.constrained and op not in ops.refused

    def _saver_ops(self) -> Iterator[str]:
        saver = {op for op, rule in graph_ops().constrained.items() if rule == "saver"}
        meta = self._meta
        used = self._reached(self._roots(), self._root_functions())
        restoring = self._reached([_name(meta.saver_def.restore_op_name)], [])
        saving = self._reached([_name(meta.saver_def.save_tensor_name)], [])
        for place in self._places:
            for node in place.nodes:
                if node.op not in saver:
                    continue
                key = id(node)
                does = "reads a file" if node.op in _RESTORE else "writes a file"
                if key in used or (key in restoring and node.op not in _RESTORE):
                    yield f"{node.op} {does} ({place.describe(node)})"
                elif node.op in _RESTORE and key in restoring:
                    if not self._is_checkpoint(place, node):
                        yield f"{node.op} reads a file other than the variables ({place.describe(node)})"
                elif place.function is not None and (key not in saving or "api_implements" in place.function.attr):
                    yield f"{node.op} {does} outside the saver ({place.describe(node)})"

    def _roots(self) -> list[str]:
        """Return the names of the nodes that using or initializing the model runs."""
        names = []
        for signature in self._meta.signature_def.values():
            for info in [*signature.outputs.values(), *signature.inputs.values()]:
                names += [info.name, info.coo_sparse.values_tensor_name, info.coo_sparse.indices_tensor_name]
                names += [info.coo_sparse.dense_shape_tensor_name]
                names += [component.name for component in info.composite_tensor.components]
        for key, collection in self._meta.collection_def.items():
            if key.endswith("_op") or "init" in key:
                names += [*collection.node_list.value]
                names += [value.decode("utf-8", "replace") for value in collection.bytes_list.value]
        return [_name(name) for name in names if name]

    def _root_functions(self) -> list[str]:
        """Return the functions of the object graph; those of the saver's own objects are reached by them too."""
        names = list(self._meta.object_graph_def.concrete_functions)
        for node in self._meta.object_graph_def.nodes:
            names += [*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name]
        return names

    def _reached(self, nodes: Iterable[str], functions: Iterable[str]) -> set[int]:
        reached: set[int] = set()
        done: set[str] = set()
        waiting = [node for name in nodes for node in self._top.by_name.get(name, [])]
        calls = list(functions)
        while waiting or calls:
            if waiting:
                node = waiting.pop()
                if id(node) in reached:
                    continue
                reached.add(id(node))
                calls += _called(node)
                waiting += [one for name in node.input for one in self._top.by_name.get(_name(name), [])]
                continue
            function = calls.pop()
            if function in done:
                continue
            done.add(function)
            for place in self._functions.get(function, []):
                reached.update(id(node) for node in place.nodes)
                calls += [name for node in place.nodes for name in _called(node)]
        return reached

    def _is_asset(self, place: _Place, node: Any) -> bool:
        # The file's name is the second input; `saved_model_file` writes the copy's assets into the constants.
        assets = {_name(asset.tensor_info.name) for asset in asset_files(self._meta)}
        found = [*self._origins(place, node.input[1], "asset")] if len(node.input) > 1 else []
        return bool(found) and all(origin is True or origin in assets for origin in found)

    def _is_checkpoint(self, place: _Place, node: Any) -> bool:
        file = _name(self._meta.saver_def.filename_tensor_name)
        found = [*self._origins(place, node.input[0], "")] if node.input else []
        # The default of the placeholder is never used: the loader always feeds the name of the checkpoint.
        return bool(found) and all(origin == file for origin in found)

    def _origins(self, place: _Place, tensor: str, kind: str) -> Iterator[str | bool]:
        """Yield where a tensor comes from: a node of the graph, True for a captured object of a kind, else False."""
        pending, seen = [(place, tensor)], set()
        fed = _name(self._meta.saver_def.filename_tensor_name)
        while pending:
            here, text = pending.pop()
            if (id(here), text) in seen:
                continue
            seen.add((id(here), text))
            name = _name(text)
            arguments = [] if here.function is None else [one.name for one in here.function.signature.input_arg]
            if name in arguments:
                callers = [*self._arguments_of(here, arguments.index(name), kind)]
                yield from (origin for origin in callers if isinstance(origin, bool))
                pending += [origin for origin in callers if not isinstance(origin, bool)]
                if not callers:
                    yield False
                continue
            nodes = here.by_name.get(name, [])
            if not nodes:
                yield False
            for node in nodes:
                if here.function is None and node.name == fed:
                    yield fed
                elif node.op in _PASS and node.input:
                    pending.append((here, node.input[0]))
                elif node.op == "ReadVariableOp" and here.function is None and node.input:
                    pending += [(here, value) for value in self._assigned(_name(node.input[0]))] or [(here, "")]
                else:
                    yield node.name if here.function is None and node.op in {"Const", "Placeholder"} else False

    def _assigned(self, variable: str) -> list[str]:
        """Return the values that the graph assigns to a variable; none when anything else could change it.

        TensorFlow 2 keeps the path of an asset in such a variable.
        """
        handles = [node for place in self._places for node in place.nodes if node.op == "VarHandleOp"]
        shared = {node.attr["shared_name"].s for node in handles if node.name == variable}
        if sum(node.attr["shared_name"].s in shared for node in handles) != 1:
            return []
        values = []
        for node in self._top.nodes:
            if variable not in {_name(text) for text in node.input if not text.startswith("^")}:
                continue
            if node.op not in {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}:
                return []
            if node.op == "AssignVariableOp" and len(node.input) > 1:
                values.append(node.input[1])
        return values

    def _arguments_of(self, place: _Place, index: int, kind: str) -> Iterator[bool | tuple[_Place, str]]:
        name = place.function.signature.name
        graph = self._meta.object_graph_def
        if name in graph.concrete_functions:
            bound = graph.concrete_functions[name].bound_inputs
            position = index - (len(place.function.signature.input_arg) - len(bound))
            captured = 0 <= position < len(bound) and 0 <= bound[position] < len(graph.nodes)
            yield captured and graph.nodes[bound[position]].WhichOneof("kind") == kind
        for caller, node in self._callers.get(name, []):
            at = index + _CALLS.get(node.op, len(node.input))
            yield (caller, node.input[at]) if at < len(node.input) else False


class _Attributes:
    """The attributes of a node; an absent one reads as empty."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def __getitem__(self, key: str) -> Any:
        from tensorflow.core.framework import attr_value_pb2

        return self._node.attr[key] if key in self._node.attr else attr_value_pb2.AttrValue()


def _called(node: Any) -> list[str]:
    """Return the functions that a node names: in its attributes, or as its op in old graphs."""
    names = [node.op]
    for value in node.attr.values():
        if value.HasField("func"):
            names.append(value.func.name)
        elif value.HasField("list"):
            names += [function.name for function in value.list.func]
    return names


def _name(tensor: str) -> str:
    """Return `scope/node` for `^scope/node`, `scope/node:0` and `scope/node:output:0`."""
    return tensor.lstrip("^").split(":", 1)[0]
