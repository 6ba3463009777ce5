"""SavedModels with harmless payloads, built in the child process. Each function writes one model that leaves a mark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def _save(path: str, effect: Callable[[Any, Any], Any]) -> None:
    """Save a model whose call also runs `effect(tf, x)`."""
    import tensorflow as tf

    class Model(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            with tf.control_dependencies([effect(tf, x)]):
                return tf.identity(x * 2.0)

    module = Model()
    tf.saved_model.save(module, path, signatures=module.__call__)


def _edit(path: str, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = Path(path) / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(message)
    file.write_bytes(message.SerializeToString())


def debug_nan_count(path: str, mark: str) -> None:
    """DebugNanCount writes its tensor into a folder."""
    _save(path, lambda tf, x: tf.raw_ops.DebugNanCount(input=x, debug_urls=[f"file://{mark}"], tensor_name="a:0"))


def debug_identity(path: str, mark: str) -> None:
    """DebugIdentity writes its tensor into a folder."""
    _save(path, lambda tf, x: tf.raw_ops.DebugIdentity(input=x, debug_urls=[f"file://{mark}"], tensor_name="a:0"))


def debug_identity_grpc(path: str, mark: str) -> None:
    """DebugIdentity connects to an address."""
    _save(path, lambda tf, x: tf.raw_ops.DebugIdentity(input=x, debug_urls=["grpc://127.0.0.1:9"], tensor_name="a:0"))


def vocabulary_remapping(path: str, mark: str) -> None:
    """GenerateVocabRemapping reads two files."""
    _save(
        path,
        lambda tf, x: (
            tf.raw_ops.GenerateVocabRemapping(
                new_vocab_file=mark, old_vocab_file=mark, new_vocab_offset=0, num_new_vocab=1
            ).num_present
        ),
    )


def decode_proto(path: str, mark: str) -> None:
    """DecodeProtoV2 reads its descriptors from a file."""
    _save(
        path,
        lambda tf, x: (
            tf.raw_ops.DecodeProtoV2(
                bytes=[""], message_type="m", field_names=[], output_types=[], descriptor_source=mark
            ).sizes
        ),
    )


def candidate_file(path: str, mark: str) -> None:
    """FixedUnigramCandidateSampler reads a vocabulary file."""
    _save(
        path,
        lambda tf, x: (
            tf.raw_ops.FixedUnigramCandidateSampler(
                true_classes=[[0]], num_true=1, num_sampled=1, unique=True, range_max=2, vocab_file=mark
            ).sampled_candidates
        ),
    )


def read_file(path: str, mark: str) -> None:
    _save(path, lambda tf, x: tf.io.read_file(mark))


def print_to_file(path: str, mark: str) -> None:
    _save(path, lambda tf, x: tf.print("x", output_stream=f"file://{mark}"))


def py_function(path: str, mark: str) -> None:
    _save(path, lambda tf, x: tf.numpy_function(lambda: 1.0, [], tf.float32))


def table_of_a_file(path: str, mark: str) -> None:
    """A table is initialized in the call from a file that is not an asset."""

    def effect(tf: Any, x: Any) -> Any:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="t")
        return tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=mark, key_index=-2, value_index=-1, vocab_size=-1, delimiter="\t"
        )

    _save(path, effect)


def dataset_in_initializer(path: str, mark: str) -> None:
    """A resource's initializer runs a graph that a string constant contains."""
    import tensorflow as tf
    from tensorflow.python.trackable.resource import CapturableResource

    def write(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(mark, "x")]):
            return tf.identity(x)

    graph = tf.data.Dataset.range(1).map(write)._as_serialized_graph().numpy()

    class Hidden(CapturableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> None:
            dataset = tf.raw_ops.DatasetFromGraph(graph_def=graph)
            tf.raw_ops.DatasetToSingleElement(dataset=dataset, output_types=[tf.int64], output_shapes=[()])

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.hidden = Hidden()

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            self.hidden.resource_handle  # noqa: B018
            return x * 2.0

    module = Model()
    tf.saved_model.save(module, path, signatures=module.__call__)
    Path(mark).unlink(missing_ok=True)


def dataset_of_a_file(path: str, mark: str) -> None:
    """Steps of tf.data that are harmless, behind a source that reads a file."""
    _save(path, lambda tf, x: tf.data.TextLineDataset(mark).batch(2).reduce("", lambda old, new: new[0]))


def dataset_that_writes(path: str, mark: str) -> None:
    """A cache of tf.data writes a file."""
    _save(path, lambda tf, x: tf.data.Dataset.range(2).cache(mark).reduce(tf.constant(0, tf.int64), lambda a, b: b))


def merged_messages(path: str, mark: str) -> None:
    """A second, harmless graph message is merged with the first one, which writes a file."""
    from tensorflow.core.protobuf import saved_model_pb2

    write_file(path, mark)
    file = Path(path) / "saved_model.pb"
    first = saved_model_pb2.SavedModel.FromString(file.read_bytes()).meta_graphs[0]
    extra = type(first)()
    extra.graph_def.node.add(name="harmless", op="NoOp")
    # One MetaGraphDef whose field graph_def occurs twice.
    body = first.SerializeToString() + extra.SerializeToString()
    outer = bytearray(b"\x08\x01\x12")
    size = len(body)
    while size > 0x7F:
        outer.append(size & 0x7F | 0x80)
        size >>= 7
    outer.append(size)
    file.write_bytes(bytes(outer) + body)


def write_file(path: str, mark: str) -> None:
    _save(path, lambda tf, x: tf.io.write_file(mark, "x"))


def unnamed_functions(path: str, mark: str) -> None:
    """The library has a function without a name that writes a file, and another one without a name."""
    _save(path, lambda tf, x: tf.no_op())

    def change(message: Any) -> None:
        library = message.meta_graphs[0].graph_def.library
        library.function.add().node_def.add(name="", op="WriteFile")
        library.function.add()

    _edit(path, change)


def second_meta_graph(path: str, mark: str) -> None:
    """A graph that would not be loaded has a custom op."""
    _save(path, lambda tf, x: tf.no_op())

    def change(message: Any) -> None:
        graph = message.meta_graphs.add()
        graph.meta_info_def.tags.append("other")
        graph.graph_def.node.add(name="a", op="LoadedByLibrary")

    _edit(path, change)


def save_disguised_by_grappler(path: str, mark: str) -> None:
    """A function outside the saver writes a checkpoint; TensorFlow may swap it in for one of the same interface."""
    _save(path, lambda tf, x: tf.no_op())

    def change(message: Any) -> None:
        function = message.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = "swapped"
        function.node_def.add(name="s", op="SaveV2")

    _edit(path, change)


def restore_of_a_foreign_checkpoint(path: str, mark: str) -> None:
    """The saver restores from a constant path in place of the fed one."""
    variable(path, mark)

    def change(message: Any) -> None:
        for function in message.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "RestoreV2":
                    constant = function.node_def.add(name="elsewhere", op="Const")
                    constant.attr["dtype"].type = 7
                    constant.attr["value"].tensor.dtype = 7
                    constant.attr["value"].tensor.string_val.append(mark.encode())
                    node.input[0] = "elsewhere:output:0"
                    break

    _edit(path, change)


def function_named_like_an_op(path: str, mark: str) -> None:
    """A library function is named as a refused op, so that the op looks like a call."""
    write_file(path, mark)
    _edit(path, lambda message: _add_function(message, "WriteFile"))


def _add_function(message: Any, name: str) -> None:
    message.meta_graphs[0].graph_def.library.function.add().signature.name = name


def variable(path: str, mark: str = "") -> None:
    """A harmless model with a variable."""
    import tensorflow as tf

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.ones((4, 2)))

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return x @ self.weight

    module = Model()
    tf.saved_model.save(module, path, signatures=module.__call__)


def vocabulary(path: str, mark: str) -> None:
    """A harmless model with a lookup table from an asset."""
    from harmless_saved_models import table_from_asset

    table_from_asset(path)


def scan(path: str) -> tuple[str, ...]:
    """Return what the scanner finds in a SavedModel."""
    from edgepack.untrusted.saved_model_file import read_saved_model

    return read_saved_model(Path(path)).code


def private_copy(path: str, target: str) -> None:
    """Write the private copy that a conversion would load."""
    from edgepack.untrusted.saved_model_file import read_saved_model

    Path(target).mkdir()
    read_saved_model(Path(path)).write_copy(Path(target))


def unreadable_assets(path: str) -> None:
    """The collection of assets holds a message that is no AssetFileDef; nothing else reads assets."""
    variable(path)

    def change(message: Any) -> None:
        collection = message.meta_graphs[0].collection_def["saved_model_assets"]
        collection.any_list.value.add(value=b"\xff\xff\xff")

    _edit(path, change)
