"""Dynamic dimensions: which shape each input gets, and a .tflite with its shapes fixed. Needs no TensorFlow."""

from collections.abc import Mapping, Sequence
from shlex import quote

import numpy as np

from edgepack.convert.model import ConvertOptions
from edgepack.errors import ConversionError, UsageError
from edgepack.graph import Model
from edgepack.graph.edit import pack, set_batch, unpack
from edgepack.text import first_line

Shape = tuple[int, ...]


def resolve_shape(name: str, shape: Sequence[int | None] | None, options: ConvertOptions) -> Shape:
    """Return the static shape of an input.

    Args:
        name: The input.
        shape: Its shape with None for dynamic dimensions; None when even the rank is open.
        options: The user's shapes and batch.

    Raises:
        ConversionError: A dimension besides the batch is dynamic and no shape is given, or the one given does not fit.
    """
    asked = options.input_shapes.get(name)
    if asked is not None:
        fits = shape is None or (
            len(asked) == len(shape) and all(have in (None, want) for want, have in zip(asked, shape, strict=True))
        )
        if not fits or any(size < 1 for size in asked):
            raise ConversionError(
                f"--input-shape {name}={_csv(asked)} does not fit input '{name}': expected {_shown(shape)}",
                hint="give every dimension, the batch first, as whole numbers from 1",
            )
        return tuple(asked)
    if shape is None:
        raise ConversionError(
            f"input '{name}' has no shape, not even a number of dimensions",
            hint=f"give its whole shape, the batch first: --input-shape {quote(name)}=1,224,224,3",
        )
    resolved = (options.batch if size is None and axis == 0 else size for axis, size in enumerate(shape))
    static = tuple(resolved)
    if any(size is None for size in static):
        example = _csv(tuple(_guess(axis, size, len(static)) for axis, size in enumerate(static)))
        raise ConversionError(
            f"input '{name}' has dynamic dimensions besides the batch: its shape is {_shown(shape)}",
            hint=f"give its whole shape, the batch first, for example: --input-shape {quote(name)}={example}",
        )
    return tuple(int(size) for size in static if size is not None)


def check_names(names: Sequence[str], options: ConvertOptions) -> None:
    """Refuse shapes for inputs that do not exist.

    Raises:
        UsageError: Lists the inputs the model has.
    """
    unknown = [name for name in options.input_shapes if name not in names]
    if unknown:
        raise UsageError(
            f"--input-shape names '{unknown[0]}', but the model has no such input",
            hint=f"its inputs are: {', '.join(names)}",
        )


def fixed_shapes(model: Model, options: ConvertOptions) -> dict[str, Shape]:
    """Return the static shape of every input of a .tflite, empty when none is dynamic.

    Raises:
        UsageError: The options name an input the file does not have.
        ConversionError: As `resolve_shape`.
    """
    check_names(model.input_names(), options)
    shapes = {}
    for name, index in zip(model.input_names(), model.main.inputs, strict=True):
        signature = model.main.tensors[index].shape_signature
        shapes[name] = resolve_shape(name, [None if size < 0 else size for size in signature], options)
    return shapes if any(model.main.tensors[index].is_dynamic for index in model.main.inputs) else {}


def fix_shapes(tflite: bytes, shapes: Mapping[str, Shape]) -> bytes:
    """Write static shapes into a .tflite; runs the model once, so call it in a child.

    The runtime works out the shapes of activations, and they are written into the file. A file this machine cannot run
    (custom ops) gets its batch fixed only.

    Args:
        tflite: A file with dynamic inputs.
        shapes: Whole shape of each input, in file order.

    Returns:
        The file with every known shape static.

    Raises:
        ConversionError: The model does not run with these shapes.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            model_content=tflite,
            # A delegate would hide the tensors between its ops.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        inputs = interpreter.get_input_details()
        for detail, shape in zip(inputs, shapes.values(), strict=True):
            interpreter.resize_tensor_input(detail["index"], shape, strict=False)
        interpreter.allocate_tensors()
        for detail, shape in zip(inputs, shapes.values(), strict=True):
            interpreter.set_tensor(detail["index"], np.zeros(shape, detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        if "unresolved custom op" in str(error) and len({shape[:1] for shape in shapes.values()}) == 1:
            return set_batch(tflite, next(iter(shapes.values()))[0])
        told = ", ".join(f"{name}={_csv(shape)}" for name, shape in shapes.items())
        raise ConversionError(
            f"the model does not run with the input shapes {told}: {first_line(error)}",
            hint="give the shapes it was made for with --input-shape",
        ) from error
    model = unpack(tflite)
    found = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        signature = tensor.shapeSignature
        if index in found and signature is not None and len(signature) and (np.asarray(signature) < 0).any():
            tensor.shape = np.array(found[index], np.int32)
            tensor.shapeSignature = None
    return pack(model)


def _guess(axis: int, size: int | None, rank: int) -> int:
    """Return a plausible number for an example: 224 for height and width of an image, 128 otherwise."""
    return size if size is not None else 1 if axis == 0 else 224 if rank == 4 else 128


def _csv(shape: Sequence[int]) -> str:
    return ",".join(str(size) for size in shape)


def _shown(shape: Sequence[int | None] | None) -> str:
    return "any shape" if shape is None else f"({', '.join('?' if size is None else str(size) for size in shape)})"
