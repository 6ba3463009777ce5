"""Dynamic dimensions: the static shape of each input, and a .tflite with static shapes. Needs no TensorFlow."""

from collections.abc import Mapping, Sequence
from shlex import quote

import numpy as np

from edgepack.child import Job
from edgepack.convert.model import ConvertOptions
from edgepack.errors import ConversionError, UsageError
from edgepack.graph import Model
from edgepack.graph.edit import pack, set_batch, unpack
from edgepack.text import first_line

Shape = tuple[int, ...]


def resolve_shape(name: str, shape: Sequence[int | None] | None, options: ConvertOptions) -> Shape:
    """Return the static shape of an input.

    Args:
        name: Name of the input.
        shape: Its shape with None for dynamic dimensions; None when the rank is unknown, too.
        options: The user's shapes and batch size.

    Raises:
        ConversionError: A dimension besides the batch is dynamic and the options have no shape for it, or one that
            does not fit.
    """
    requested = options.input_shapes.get(name)
    if requested is not None:
        fits = shape is None or (
            len(requested) == len(shape)
            and all(size in (None, new) for new, size in zip(requested, shape, strict=True))
        )
        if not fits or any(size < 1 for size in requested):
            raise ConversionError(
                f"--input-shape {name}={_csv(requested)} does not fit input '{name}': expected {_format_open(shape)}",
                hint="give all dimensions, batch first, as positive integers",
            )
        return tuple(requested)
    if shape is None:
        raise ConversionError(
            f"input '{name}' has neither a shape nor a known number of dimensions",
            hint=f"give its full shape, batch first: --input-shape {quote(name)}=1,224,224,3",
        )
    resolved = (options.batch if size is None and axis == 0 else size for axis, size in enumerate(shape))
    static = tuple(resolved)
    if any(size is None for size in static):
        example = _csv(tuple(_example_size(axis, size, len(static)) for axis, size in enumerate(static)))
        raise ConversionError(
            f"input '{name}' has dynamic dimensions besides the batch: its shape is {_format_open(shape)}",
            hint=f"give its full shape, batch first, for example: --input-shape {quote(name)}={example}",
        )
    return tuple(int(size) for size in static if size is not None)


def check_names(names: Sequence[str], options: ConvertOptions) -> None:
    """Refuse shapes for inputs that do not exist.

    Raises:
        UsageError: Lists the inputs of the model.
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
        UsageError: The options name an input that the file does not have.
        ConversionError: See `resolve_shape`.
    """
    check_names(model.input_names(), options)
    shapes = {}
    for name, index in zip(model.input_names(), model.main.inputs, strict=True):
        signature = model.main.tensors[index].shape_signature
        shapes[name] = resolve_shape(name, [None if size < 0 else size for size in signature], options)
    return shapes if any(model.main.tensors[index].is_dynamic for index in model.main.inputs) else {}


def fix_shapes(tflite: bytes, shapes: Mapping[str, Shape]) -> bytes:
    """Write static shapes into a .tflite. This runs the model once: run `FIX_SHAPES` in a child process.

    The runtime infers the shapes of activations, and they are written into the file. For a file that this machine
    cannot run (custom ops), only the batch dimension becomes static.

    Args:
        tflite: A file with dynamic inputs.
        shapes: Full shape of each input, in file order.

    Returns:
        The file with every known shape static.

    Raises:
        ConversionError: The model does not run with these shapes.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            model_content=tflite,
            # A delegate hides the tensors between its ops.
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
        raise ConversionError(
            f"the model does not run with the input shapes {format_shapes(shapes)}: {first_line(error)}",
            hint="give the shapes that the model expects with --input-shape",
        ) from error
    model = unpack(tflite)
    inferred = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        signature = tensor.shapeSignature
        if index in inferred and signature is not None and len(signature) and (np.asarray(signature) < 0).any():
            tensor.shape = np.array(inferred[index], np.int32)
            tensor.shapeSignature = None
    return pack(model)


#: `fix_shapes` as a job; `Conversion.run` adds the file and its format to the error texts.
FIX_SHAPES = Job(
    fix_shapes,
    error=ConversionError,
    purpose="making the shapes static",
    hint="give the shapes that the model expects with --input-shape",
)


def format_shapes(shapes: Mapping[str, Shape]) -> str:
    """Return shapes as the command line spells them: `image=1,224,224,3, mask=1,224,224`."""
    return ", ".join(f"{name}={_csv(shape)}" for name, shape in shapes.items())


def _example_size(axis: int, size: int | None, rank: int) -> int:
    """Return a plausible size for an example: 224 for height and width of an image, 128 otherwise."""
    return size if size is not None else 1 if axis == 0 else 224 if rank == 4 else 128


def _csv(shape: Sequence[int]) -> str:
    return ",".join(str(size) for size in shape)


def _format_open(shape: Sequence[int | None] | None) -> str:
    return "any shape" if shape is None else f"({', '.join('?' if size is None else str(size) for size in shape)})"
