"""Messages between a command and its child processes: pickles with their length.

A child runs native code on a stranger's model, so its replies are not trusted: a pickle that names a function would run
that function in the parent, outside the child's confinement. `load_reply` accepts data only: plain values, arrays,
paths, dataclasses, enums and edgepack's errors.
"""

import copyreg
import dataclasses
import enum
import io
import pickle
import struct
import sys
from typing import Any, BinaryIO

from edgepack.errors import EdgepackError

#: Length of the pickle that follows, in bytes.
HEADER = struct.Struct("<Q")

#: Classes and functions that build plain values; numpy's are those that arrays, scalars and data types name.
_PLAIN = {
    "builtins": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "timedelta"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.numeric": {"_frombuffer"},
    "edgepack.errors": {"_rebuild"},
}


class _Replies(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        # Modules of plugins are loaded already: the parent has asked for the function that replies.
        if module in sys.modules or module.partition(".")[0] in {"edgepack", "ml_dtypes"}:
            value = super().find_class(module, name)
            if isinstance(value, type) and _is_data(value):
                return value
        raise pickle.UnpicklingError(f"the reply contains {module}.{name}, which is not plain data")


def _is_data(value: type) -> bool:
    bases = {f"{base.__module__}.{base.__qualname__}" for base in value.__mro__}
    return (
        dataclasses.is_dataclass(value)
        or issubclass(value, enum.Enum | EdgepackError)
        or (issubclass(value, tuple) and hasattr(value, "_fields"))
        or "numpy.generic" in bases
    )


def load_reply(data: bytes) -> tuple[str, Any]:
    """Return the kind and the value of a child's reply.

    Raises:
        pickle.UnpicklingError: It is no pickle of a pair, or contains anything but plain data.
    """
    try:
        kind, value = _Replies(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise pickle.UnpicklingError(f"the reply cannot be read: {type(error).__name__}: {error}") from error
    return str(kind), value


def send(stream: BinaryIO | Any, message: Any) -> None:
    """Write a message."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL)
    # Libraries register functions that pickle exceptions with their traceback for the whole process (TensorFlow does so
    # where tblib is installed); the reader would refuse their result as code.
    pickler.dispatch_table = {
        kind: reduce for kind, reduce in copyreg.dispatch_table.items() if not issubclass(kind, BaseException)
    }
    pickler.dump(message)
    payload = buffer.getvalue()
    stream.write(HEADER.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def receive(requests: BinaryIO) -> bytes | None:
    """Return the next pickle of the parent, None when it has closed the pipe."""
    header = requests.read(HEADER.size)
    return requests.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else None
