"""Write the architectures of keras.applications, untrained and with small inputs, as float .tflite files."""

import sys
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

#: Architecture: image size in pixels, further arguments.
ARCHITECTURES = {
    "ConvNeXtTiny": (32, {}),
    "EfficientNetB0": (32, {}),
    "InceptionV3": (75, {}),
    "MobileNet": (64, {"alpha": 0.25}),
    "MobileNetV2": (64, {"alpha": 0.35}),
    "MobileNetV3Large": (64, {"alpha": 0.75}),
    "MobileNetV3Small": (64, {"minimalistic": True}),
    "ResNet50V2": (32, {}),
    "VGG16": (32, {"include_top": False, "pooling": "avg"}),
    "Xception": (71, {}),
}


def main(folder: Path, names: list[str]) -> None:
    for name in names or ARCHITECTURES:
        size, arguments = ARCHITECTURES[name]
        settings = {"weights": None, "input_shape": (size, size, 3), **arguments}
        if arguments.get("include_top", True):
            settings["classes"] = 10
        model = getattr(keras.applications, name)(**settings)
        spec = tf.TensorSpec((1, size, size, 3), tf.float32, name="image")
        function = tf.function(lambda image, model=model: model(image, training=False)).get_concrete_function(spec)
        # Freezing turns Keras 3's variables into constants of the file.
        frozen = convert_variables_to_constants_v2(function)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        (folder / f"{name}.tflite").write_bytes(converter.convert())
        keras.backend.clear_session()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
