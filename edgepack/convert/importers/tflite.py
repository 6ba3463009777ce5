""".tflite: used without TensorFlow; float16 weights are widened, dynamic dimensions made static, LSTM loops fused."""

from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.model import FloatModel
from edgepack.errors import ModelFileError, UnfitModelError

#: What compilers append to the name of the file that they read.
_COMPILED_SUFFIXES = ("_edgetpu", "_vela", "_compiled")


class TfliteImporter(Importer):
    """Reads LiteRT (TensorFlow Lite) files, float or quantized."""

    id = "tflite"
    title = "a .tflite"
    suffixes = (".tflite",)

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for the file identifier `TFL3` of the flatbuffer."""
        return head[4:8] == b"TFL3"

    def convert(self, conversion: Conversion) -> FloatModel:
        """Return the file itself, or a copy that TFLite's kernels and the quantizers can use.

        Float16 weights become float32, dynamic dimensions static, loops of LSTM layers one op, and fake quantization
        ranges.

        Raises:
            UnfitModelError: A compiler has changed the file for one accelerator.
            ModelFileError: It is broken, or its weights are not in it.
            UsageError: The options name an input that does not exist.
            ConversionError: It has dynamic dimensions without a requested shape, or does not run with the shapes.
        """
        from edgepack.convert.open_shapes import FIX_SHAPES, fixed_shapes
        from edgepack.convert.recurrent import FUSE_LSTMS
        from edgepack.graph import read_bytes, read_model
        from edgepack.graph.custom_ops import compiled_by
        from edgepack.graph.fake_quant import fold_fake_quant
        from edgepack.graph.variables import unassigned_variables
        from edgepack.graph.widen import widen

        given = read_bytes(conversion.path)
        model = read_model(given, path=conversion.path)
        _refuse_compiled(conversion.path, compiled_by(model))
        _refuse_missing_weights(conversion.path, unassigned_variables(model))
        data, notes = widen(given, model)
        data = fold_fake_quant(data)
        if data is not given:
            model = read_model(data)
        shapes = fixed_shapes(model, conversion.options)
        if shapes:
            data = conversion.run(FIX_SHAPES.call(data, shapes))
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            notes = (*notes, f"dynamic dimensions became static: {listed}")
            model = read_model(data)
        if model.is_float and any(op.name == "WHILE" for op in model.main.ops):
            fusion = conversion.run(FUSE_LSTMS.call(data, [dict(sample) for sample in conversion.samples[:4]]))
            data = fusion.tflite
            done = ("loops of LSTM layers became fused ops; the outputs were compared",) if fusion.fused else ()
            notes = (*notes, *done, *fusion.notes)
        return FloatModel(data, self.id, quantized=not model.is_float, checked=None, notes=notes)


def _refuse_compiled(path: Path, compiler: str) -> None:
    """Refuse a compiled file: it cannot be quantized or run here, and a bundle of it would have no fallback.

    Args:
        path: The user's file.
        compiler: What compiled it, empty for a file as the converter wrote it.

    Raises:
        UnfitModelError: It is compiled; the hint names the file from before the compilation, where there is one.
    """
    if not compiler:
        return
    stems = [path.stem.removesuffix(suffix) for suffix in _COMPILED_SUFFIXES if path.stem.endswith(suffix)]
    source = next((file for stem in stems if (file := path.with_name(f"{stem}.tflite")).is_file()), None)
    given = f"give '{source}'" if source is not None else "give the .tflite from before the compilation"
    raise UnfitModelError(
        f"'{path}' was compiled by {compiler} and runs only there: it cannot be measured, quantized or bundled with a "
        "fallback on the CPU",
        hint=f"{given}; edgepack runs the compiler itself where it is installed, and ships both files",
    )


def _refuse_missing_weights(path: Path, variables: tuple[str, ...]) -> None:
    """Refuse a file whose variables nothing assigns: the runtime would compute with memory that was never written.

    Raises:
        ModelFileError: There is such a variable.
    """
    if variables:
        raise ModelFileError(
            f"'{path}' does not contain its weights: nothing in it assigns the variables that it reads, the first of "
            f"which is '{variables[0]}'",
            hint="convert again from the saved model: model.export(FOLDER), then give FOLDER to edgepack",
        )
