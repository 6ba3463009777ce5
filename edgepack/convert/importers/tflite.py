""".tflite: used without TensorFlow; only dynamic dimensions are made static, and loops of LSTM layers are fused."""

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
        """Return the file itself, or a copy with static shapes and fused LSTM ops where the file needs them."""
        from edgepack.convert.open_shapes import FIX_SHAPES, fixed_shapes
        from edgepack.convert.recurrent import FUSE_LSTMS
        from edgepack.graph import read_model

        data = conversion.path.read_bytes()
        model = read_model(conversion.path)
        notes: tuple[str, ...] = ()
        shapes = fixed_shapes(model, conversion.options)
        if shapes:
            data = conversion.run(FIX_SHAPES.call(data, shapes))
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            notes = (f"dynamic dimensions became static: {listed}",)
            model = read_model(data)
        if model.is_float and any(op.name == "WHILE" for op in model.main.ops):
            fusion = conversion.run(FUSE_LSTMS.call(data, [dict(sample) for sample in conversion.samples[:4]]))
            data = fusion.tflite
            done = ("loops of LSTM layers became fused ops; the outputs were compared",) if fusion.fused else ()
            notes = (*notes, *done, *fusion.notes)
        return FloatModel(data, self.id, quantized=not model.is_float, checked=None, notes=notes)
