"""Saves modules with loops and branches: `python loop_modules.py FOLDER N`, after N other functions were traced."""

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from edgepack.convert.live_model import save_live_model
from edgepack.digests import hash_path

for other in range(int(sys.argv[2])):
    tf.function(lambda x, y=other: x + y).get_concrete_function(tf.TensorSpec([1]))

X = tf.TensorSpec([1, 4], tf.float32, name="x")


class Base(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones([4, 4]) * 0.1)
        self.v = tf.Variable(tf.zeros([4]))


class Nested(Base):
    @tf.function(input_signature=[X])
    def __call__(self, x: Any) -> Any:
        i = tf.constant(0)
        while i < 3:
            x = tf.matmul(x, self.w)
            if tf.reduce_sum(x) > 3.0:
                j = tf.constant(0)
                while j < i:
                    x += self.v
                    j += 1
            i += 1
        return x


class Scan(Base):
    @tf.function(input_signature=[X])
    def __call__(self, x: Any) -> Any:
        y = tf.scan(lambda a, b: tf.tanh(a + b @ self.w), tf.stack([x, x * 2, x * 3]))
        z = tf.map_fn(lambda a: tf.cond(tf.reduce_sum(a) > 0.0, lambda: a @ self.w, lambda: a - self.v), y)
        return {"z": z, "sum": tf.while_loop(lambda i, s: i < 4, lambda i, s: (i + 1, s + z[0]), (0, x))[1]}


class Lists(Base):
    @tf.function(input_signature=[X])
    def inner(self, x: Any) -> Any:
        return tf.nn.relu(x @ self.w)

    @tf.function(input_signature=[X])
    def __call__(self, x: Any) -> Any:
        values = tf.TensorArray(tf.float32, 3)
        for i in tf.range(3):
            values = values.write(i, self.inner(x) + tf.cast(i, tf.float32))
        return tf.switch_case(tf.cast(tf.reduce_sum(x) > 0.0, tf.int32), [values.stack, lambda: values.stack() * 2])


report = {}
for kind in (Nested, Scan, Lists):
    module = kind()
    x = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    path = save_live_model(module, Path(sys.argv[1]), kind.__name__)
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"](x=x)
    expected = module(x)
    values = expected.values() if isinstance(expected, dict) else [expected]
    sums = sorted(float(tf.reduce_sum(value)) for value in values)
    same = sums == sorted(float(tf.reduce_sum(value)) for value in loaded.values())
    report[kind.__name__] = [hash_path(path), same]
print(json.dumps(report))
