"""Values of options that are written as text: shapes of inputs."""

from edgepack.errors import UsageError


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape of `NAME=1,224,224,3`.

    Raises:
        UsageError: The text has another form.
    """
    name, separator, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape or min(shape) < 1:
        raise UsageError(f"--input-shape: expected NAME=1,224,224,3, got '{text}'")
    return name, shape
