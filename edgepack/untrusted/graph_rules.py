"""Rules for graph ops that are harmless in one form only. A rule returns a predicate when a node has another form."""

from collections.abc import Callable
from typing import Any

#: Streams of tf.print that are no files.
_CONSOLES = {"", "stderr", "stdout", "log(info)", "log(warning)", "log(error)"}

#: Fields of ConfigProto that TensorFlow writes into exported calls; others name devices, machines or optimizers.
_CONFIG_FIELDS = {
    "device_count", "intra_op_parallelism_threads", "inter_op_parallelism_threads", "allow_soft_placement",
    "gpu_options", "graph_options", "experimental", "log_device_placement", "operation_timeout_in_ms",
    "isolate_session_state", "share_cluster_devices_in_session", "pluggable_device_options",
}  # fmt: skip


def _no_debug_url(attributes: Any) -> str:
    values = [*attributes["debug_urls"].list.s, *attributes["debug_ops_spec"].list.s]
    return f"sends tensors to {_text(values[0])}" if values else ""


def _inline_descriptor(attributes: Any) -> str:
    source = attributes["descriptor_source"].s
    return "" if not source or source == b"local://" or source.startswith(b"bytes://") else f"reads {_text(source)}"


def _no_vocabulary_file(attributes: Any) -> str:
    value = attributes["vocab_file"].s
    return f"reads {_text(value)}" if value else ""


def _console(attributes: Any) -> str:
    stream = attributes["output_stream"].s.decode("utf-8", "replace")
    return "" if stream in _CONSOLES else f"writes a file ('{stream[:80]}')"


def _plain_constant(attributes: Any) -> str:
    return _plain(attributes["dtype"].type) or _plain(attributes["value"].tensor.dtype)


def _plain_type(attributes: Any) -> str:
    return _plain(attributes["out_type"].type)


def _plain(dtype: int) -> str:
    from tensorflow.core.framework import types_pb2

    # The types with a suffix, such as DT_VARIANT_REF, have numbers above 100.
    opaque = {types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
    return "contains an object instead of numbers or text" if dtype % 100 in opaque else ""


def _plain_config(attributes: Any) -> str:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import config_pb2

    data = attributes["config_proto"].s or attributes["config"].s
    try:
        config = config_pb2.ConfigProto.FromString(data)
    except DecodeError:
        return "has a configuration that cannot be read"
    fields = {field.name for field, _ in config.ListFields()} - _CONFIG_FIELDS
    rewrite = config.graph_options.rewrite_options
    if rewrite.custom_optimizers or rewrite.optimizers:
        fields.add("custom_optimizers")
    if config.experimental.coordination_config.service_type or config.experimental.collective_group_leader:
        fields.add("coordination_config")
    return f"changes how TensorFlow runs ({', '.join(sorted(fields))})" if fields else ""


#: Rules that need a node's attributes only. `asset_file` and `saver` need the whole graph: see `graph_code`.
RULES: dict[str, Callable[[Any], str]] = {
    "console": _console,
    "inline_descriptor": _inline_descriptor,
    "no_debug_url": _no_debug_url,
    "no_vocabulary_file": _no_vocabulary_file,
    "plain_config": _plain_config,
    "plain_constant": _plain_constant,
    "plain_type": _plain_type,
}


def _text(value: bytes) -> str:
    return f"'{value[:80].decode('utf-8', 'replace')}'"
