""".tflite: used as it is, without TensorFlow; float16 weights become float32, dynamic dimensions static."""

from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.model import FloatModel


class TfliteImporter(Importer):
    """Reads LiteRT (TensorFlow Lite) files, float or quantized."""

    id = "tflite"
    title = "a .tflite"
    suffixes = (".tflite",)

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for the file identifier `TFL3` of the flatbuffer."""
        return head[4:8] == b"TFL3"

    def convert(self, conversion: Conversion) -> FloatModel:
        """Return the file itself, or a copy with float32 weights and static shapes."""
        from edgepack.convert.open_shapes import FIX_SHAPES, fixed_shapes
        from edgepack.graph import read_bytes, read_model
        from edgepack.graph.widen import widen

        given = read_bytes(conversion.path)
        model = read_model(given, path=conversion.path)
        data, notes = widen(given, model)
        if data is not given:
            model = read_model(data)
        shapes = fixed_shapes(model, conversion.options)
        if shapes:
            data = conversion.run(FIX_SHAPES.call(data, shapes))
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            notes = (*notes, f"dynamic dimensions became static: {listed}")
            model = read_model(data)
        return FloatModel(data, self.id, quantized=not model.is_float, checked=None, notes=notes)
