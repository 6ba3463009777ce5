""".tflite: used as it is, without TensorFlow; dynamic dimensions become static, fake quantization becomes ranges."""

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
        """Return the file, or a copy with static shapes, and with ranges in place of fake quantization."""
        from edgepack.convert.open_shapes import FIX_SHAPES, fixed_shapes
        from edgepack.graph import read_model
        from edgepack.graph.fake_quant import fold_fake_quant

        model = read_model(conversion.path)
        data = conversion.path.read_bytes()
        if (folded := fold_fake_quant(data)) is not data:
            data, model = folded, read_model(folded)
        notes: tuple[str, ...] = ()
        shapes = fixed_shapes(model, conversion.options)
        if shapes:
            data = conversion.run(FIX_SHAPES.call(data, shapes))
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            notes = (f"dynamic dimensions became static: {listed}",)
            model = read_model(data)
        return FloatModel(data, self.id, quantized=not model.is_float, checked=None, notes=notes)
