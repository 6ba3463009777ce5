"""Convert the keyword-spotting SavedModel with TFLiteConverter: float.tflite and int8.tflite into a folder."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def main(source: Path, folder: Path) -> None:
    # The loaded object owns the variables: it has to outlive the tracing.
    loaded = tf.saved_model.load(str(source / "kws_saved_model"))
    served = loaded.signatures["serving_default"]
    spec = tf.TensorSpec((1, 49, 10, 1), tf.float32, name="input_1")
    frozen = convert_variables_to_constants_v2(
        tf.function(lambda x: served(input_1=x), autograph=False).get_concrete_function(spec)
    )
    with np.load(source / "kws_samples.npz") as data:
        samples = data["x"][:100]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    (folder / "float.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())


main(Path(sys.argv[1]), Path(sys.argv[2]))
