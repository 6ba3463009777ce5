"""What nothing refers to disappears from files, and equal constants are stored once."""

import builders
import numpy as np

from edgepack.graph import read_model
from edgepack.graph.unused import share_equal_constants


def test_equal_constants_share_a_buffer():
    """The file shrinks by what was stored twice, computes the same, and does not change a second time."""
    net = builders.Net()
    x, y, z = net.tensor("x", (1, 64)), net.tensor("y", (1, 64)), net.tensor("z", (1, 64))
    net.op("ADD", [x, net.constant("one", np.ones(64))], [y])
    net.op("ADD", [y, net.constant("also one", np.ones(64))], [z])
    tflite = net.build([x], [z])
    shared = share_equal_constants(tflite)
    assert len(shared) <= len(tflite) - 256
    tensors = {tensor.name: tensor for tensor in read_model(shared).main.tensors}
    assert tensors["one"].buffer == tensors["also one"].buffer != tensors["x"].buffer
    sample = builders.samples(tflite, 1)[0]
    np.testing.assert_array_equal(builders.run(tflite, sample)[0], builders.run(shared, sample)[0])
    assert share_equal_constants(shared) == shared
    assert share_equal_constants(builders.classifier()) == builders.classifier()
