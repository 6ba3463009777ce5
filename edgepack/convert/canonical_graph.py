"""SavedModels whose bytes depend on their content only: without TensorFlow's counters and without an identifier."""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

#: Counters of the process in the name of a function: `__inference_call_214`, `while_body_567_1234`.
_COUNTERS = re.compile(r"(?:_\d+)+(?=_|$)")
#: Attributes with counters, which only training and messages look at: of calls, and of captured variables.
_GRADIENT, _NAME = "_gradient_op_type", "_user_specified_name"


def write_canonical(folder: Path) -> None:
    """Rewrite a SavedModel in place: number its functions in the order in which the graph calls them.

    Args:
        folder: What `tf.saved_model.save` wrote in this process.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    # An identifier that is random in each save; loading does not need it.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel()
    message.ParseFromString(file.read_bytes())
    for graph in message.meta_graphs:
        _renumber(graph)
    file.write_bytes(message.SerializeToString(deterministic=True))


def _renumber(graph: Any) -> None:
    library = graph.graph_def.library
    functions = {function.signature.name: function for function in library.function}
    keywords = {name for node in graph.object_graph_def.nodes for name in node.bare_concrete_function.argument_keywords}
    called = {node.op for function in library.function for node in function.node_def}
    called |= {node.op for node in graph.graph_def.node}
    for function in library.function:
        _rename_arguments(function, keywords, outputs=function.signature.name not in called)
    order: dict[str, str] = {}
    pending = [name for node in graph.graph_def.node for name in _called(node)]
    objects = graph.object_graph_def
    for node in objects.nodes:
        pending += list(node.function.concrete_functions)
        if node.bare_concrete_function.concrete_function_name:
            pending.append(node.bare_concrete_function.concrete_function_name)
    # What no node names comes last, by its name without counters.
    pending += sorted(functions, key=_by_counters)
    pending.reverse()
    while pending:
        name = pending.pop()
        if name in order or name not in functions:
            continue
        order[name] = f"{_COUNTERS.sub('', name)}_{len(order)}"
        pending += [inner for node in functions[name].node_def for inner in _called(node)][::-1]
    _rename(graph, order)
    ordered = sorted(library.function, key=lambda function: str(function.signature.name))
    copies = [type(function).FromString(function.SerializeToString()) for function in ordered]
    del library.function[:]
    library.function.extend(copies)


def _rename_arguments(function: Any, keywords: Set[str], *, outputs: bool) -> None:
    """Name what a function takes and returns without counters of other functions: `while_cond_83___placeholder0`.

    Args:
        function: The function, whose arguments are passed by their positions.
        keywords: Names that callers of the model use.
        outputs: Rename what it returns too: no node reads this by name.
    """
    taken = {*keywords, *(node.name for node in function.node_def)}
    names = _without_counters([argument.name for argument in function.signature.input_arg], keywords, taken)
    for argument in function.signature.input_arg:
        argument.name = names[argument.name]
    for node in function.node_def:
        node.input[:] = [_renamed(name, names) for name in node.input]
    for key in list(function.ret):
        function.ret[key] = _renamed(function.ret[key], names)
    if not outputs:
        return
    names = _without_counters([argument.name for argument in function.signature.output_arg], keywords, set(keywords))
    for argument in function.signature.output_arg:
        argument.name = names[argument.name]
    returned = {names[key]: function.ret[key] for key in list(function.ret)}
    function.ret.clear()
    function.ret.update(returned)


def _without_counters(names: Sequence[str], keywords: Set[str], taken: set[str]) -> dict[str, str]:
    """Return a new name for each, unique and not taken, by the place where it stands."""
    renamed: dict[str, str] = {}
    for name in names:
        plain = _COUNTERS.sub("", name) or "argument"
        number, free = 0, plain
        while free in taken:
            number += 1
            free = f"{plain}_{number}"
        renamed[name] = name if name in keywords else free
        taken.add(renamed[name])
    return renamed


def _renamed(tensor: str, names: Mapping[str, str]) -> str:
    """Return the reference to a tensor, `argument`, `node:output:0` or `^node`, by the new names."""
    control, name = ("^", tensor[1:]) if tensor.startswith("^") else ("", tensor)
    node, colon, output = name.partition(":")
    return f"{control}{names.get(node, node)}{colon}{output}"


def _by_counters(name: str) -> tuple[str, list[int]]:
    """Return the order in which functions of one name were made: 99 comes before 100."""
    return _COUNTERS.sub("", name), [int(number) for number in re.findall(r"\d+", name)]


def _called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a node calls, in a fixed order."""
    yield node.op
    for key in sorted(node.attr):
        value = node.attr[key]
        if value.WhichOneof("value") == "func":
            yield value.func.name
        elif value.WhichOneof("value") == "list":
            yield from (function.name for function in value.list.func)


def _rename(message: Any, names: Mapping[str, str]) -> None:
    """Replace names of functions wherever a message has one, and remove the attributes that hold counters."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            _rename_map(getattr(message, field.name), field, names)
        elif field.type == field.TYPE_MESSAGE:
            for item in value if _repeated(field) else [value]:
                _rename(item, names)
        elif field.type == field.TYPE_STRING and _repeated(field):
            if any(item in names for item in value):
                value[:] = [names.get(item, item) for item in value]
        elif field.type == field.TYPE_STRING and value in names:
            setattr(message, field.name, names[value])
        elif field.type == field.TYPE_BYTES and not _repeated(field) and value.decode("utf-8", "ignore") in names:
            setattr(message, field.name, names[value.decode()].encode())


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _rename_map(entries: Any, field: Any, names: Mapping[str, str]) -> None:
    keys = list(entries)
    for key in (_GRADIENT, _NAME):
        if key in keys and (key == _GRADIENT or entries[key].s.isdigit()):
            del entries[key]
            keys.remove(key)
    values = field.message_type.fields_by_name["value"]
    for key in keys:
        if values.type == values.TYPE_MESSAGE:
            _rename(entries[key], names)
        elif values.type == values.TYPE_STRING and entries[key] in names:
            entries[key] = names[entries[key]]
    for key in keys:
        if key in names:
            if values.type == values.TYPE_MESSAGE:
                entries[names[key]].CopyFrom(entries[key])
            else:
                entries[names[key]] = entries[key]
            del entries[key]
