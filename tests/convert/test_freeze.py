"""Promise: a function is frozen once, and the file is byte for byte that of TFLiteConverter's own freezing."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from edgepack.convert import freeze
from edgepack.convert.environment import import_tensorflow
from edgepack.convert.open_lists import has_lists
from edgepack.digests import sha256
from edgepack.graph import read_model

pytestmark = pytest.mark.slow


def _concrete(tf: Any, run: Callable[..., Any], specs: list[Any], *keep: Any) -> Any:
    """Trace a function; a graph holds its variables by weak references only."""
    function = tf.function(run, input_signature=specs).get_concrete_function()
    function.kept_by_test = keep
    return function


def _plain(tf: Any) -> Any:
    """A convolution, a captured constant that is no variable, and an input that no op reads."""
    kernel = tf.Variable(tf.random.stateless_normal((3, 3, 2, 4), (1, 2)))
    shift = tf.constant([[0.5, 1.0, 1.5, 2.0]])
    specs = [tf.TensorSpec((1, 8, 8, 2), name="image"), tf.TensorSpec((1, 3), name="unread")]

    def run(image: Any, unread: Any) -> Any:
        return tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")) + shift, tf.nn.softmax(shift)

    return _concrete(tf, run, specs, kernel)


def _loop(tf: Any) -> Any:
    """A loop whose body reads a variable."""
    weight = tf.Variable(tf.random.stateless_normal((4, 4), (3, 4)))

    def run(x: Any) -> Any:
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(y @ weight)), (0, x))[1]

    return _concrete(tf, run, [tf.TensorSpec((1, 4), name="x")], weight)


def _branch(tf: Any) -> Any:
    """Two branches, each with a variable of its own."""
    one, other = tf.Variable(tf.ones((4, 4))), tf.Variable(2.0 * tf.ones((4, 4)))

    def run(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0.0, lambda: x @ one, lambda: x @ other)

    return _concrete(tf, run, [tf.TensorSpec((1, 4), name="x")], one, other)


def _lists(tf: Any) -> Any:
    """A recurrent layer: its loop collects the outputs in a tensor list."""
    import keras

    layer = keras.layers.GRU(3, return_sequences=True, reset_after=False)
    layer.build((1, 5, 2))
    return _concrete(tf, layer, [tf.TensorSpec((1, 5, 2), name="x")], layer)


def _content(tflite: bytes) -> list[Any]:
    """What a file holds, without the counters that TensorFlow puts into the names of branches."""
    graphs = read_model(tflite).graphs
    tensors = [
        [
            (re.sub(r"_frozen_\d+", "", t.name), t.shape, b"" if t.raw is None else t.raw.tobytes())
            for t in graph.tensors
        ]
        for graph in graphs
    ]
    ops = [[(op.name, op.inputs, op.outputs, dict(op.options)) for op in graph.ops] for graph in graphs]
    return [tensors, ops, [(graph.inputs, graph.outputs) for graph in graphs]]


@pytest.mark.parametrize("make", [_plain, _loop, _branch, _lists], ids=["plain", "loop", "branch", "lists"])
def test_same_file_as_without_the_shortcut(make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables, captured constants, unread inputs, loops, branches and tensor lists: the same file."""
    function = make(import_tensorflow())
    files = []
    for freezing in (freeze._freeze, lambda _: None):
        monkeypatch.setattr(freeze, "_freeze", freezing)
        converter = freeze.frozen_converter(function, [1])
        converter.exclude_conversion_metadata = True
        files.append(bytes(converter.convert()))
    assert _content(files[0]) == _content(files[1])
    # Digests, because pytest takes minutes to show how two large byte strings differ.
    assert make is _branch or sha256(files[0]) == sha256(files[1])


def test_another_tensorflow_freezes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorFlow's private functions are missing, the documented ones do the work."""
    import_tensorflow()
    from tensorflow.python.framework import convert_to_constants

    function = _plain(import_tensorflow())
    monkeypatch.delattr(convert_to_constants, "_replace_variables_by_constants")
    assert freeze._freeze(function) is None
    monkeypatch.undo()
    frozen = freeze._freeze(function)
    assert frozen is not None and [tensor.name for tensor in frozen[1]] == ["image:0", "unread:0"]
    assert not has_lists(frozen[0])
