"""The interface of simulators: what a compiler wrapper offers that can run its files without the accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgepack.compilers.base import Compiler
from edgepack.compilers.registry import get_compiler
from edgepack.errors import EdgepackError, UnfitModelError, UsageError
from edgepack.tools import ToolInfo

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SimulatorInfo:
    """The installed simulator.

    Attributes:
        name: Name for people (`Qualcomm's HTP simulator`).
        version: Its version, and those of the packages that run it.
        seconds_per_mac: About how long it takes for a multiply-accumulate operation, in seconds; `seconds_per_run` is
            added for each run. They decide how many samples are run, so that the number does not depend on the clock.
        seconds_per_run: See `seconds_per_mac`.
    """

    name: str
    version: str
    seconds_per_mac: float
    seconds_per_run: float


class Simulator(Protocol):
    """A loaded file: the compiled parts run on the simulator, the other ops on the CPU."""

    def run(self, arrays: Sequence[Array], *, keep_state: bool = False) -> list[Array]:
        """Run the file once.

        Args:
            arrays: One array per input in file order, in the file's shape and dtype.
            keep_state: True to continue from the state that the last run left, as a stream does.

        Returns:
            One array per output, in the file's dtype.

        Raises:
            UnfitModelError: The simulator fails, or a shape differs from the file's.
        """
        ...


@runtime_checkable
class SimulatingCompiler(Compiler, Protocol):
    """A compiler wrapper that offers a simulator of its accelerator; it sets `supports_simulation`."""

    def find_simulator(self) -> SimulatorInfo:
        """Return the installed simulator.

        Raises:
            ToolMissingError: A part of it is not installed.
        """
        ...

    def load_simulator(self, compiled: bytes, architecture: str) -> Simulator:
        """Load a file that this compiler wrote; called in a child process, which vendors' libraries may end.

        Args:
            compiled: Bytes of the compiled .tflite.
            architecture: The chip's architecture as the profile names it (`v73`), empty when it names none.

        Raises:
            ToolMissingError: A part of the simulator is not installed.
            UnfitModelError: The simulator does not load the file, or cannot run one of this form.
        """
        ...


def simulating_compiler(compiler_id: str) -> SimulatingCompiler:
    """Return the wrapper with this id.

    Raises:
        UsageError: It offers no simulator, or there is no such wrapper.
    """
    compiler = get_compiler(compiler_id)
    if not compiler.supports_simulation or not isinstance(compiler, SimulatingCompiler):
        raise UsageError(f"the compiler '{compiler_id}' offers no simulator of its accelerator")
    return compiler


def simulator_tool(compiler: Compiler) -> ToolInfo:
    """Return whether a compiler's simulator is installed, for `edgepack doctor`; never raises for a missing one."""
    try:
        info = simulating_compiler(compiler.id).find_simulator()
    except EdgepackError as error:
        return ToolInfo(f"simulator of {compiler.id}", "", "", False, error.message, error.hint)
    return ToolInfo(info.name, "", info.version, True, "", "")


def require_shapes(arrays: Sequence[Array], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse inputs whose shapes are not those that a file was compiled for.

    Raises:
        UnfitModelError: A shape differs.
    """
    for position, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        if tuple(np.shape(array)) != tuple(shape):
            raise UnfitModelError(
                f"the file was compiled for input {position} of shape {list(shape)}, and a sample has "
                f"{list(np.shape(array))}",
                hint="give samples of that shape, or set the shape with --input-shape before compiling",
            )
