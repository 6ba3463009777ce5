"""Models with state: an interpreter whose every run starts from the initial state, or continues a stream.

Variable tensors (an LSTM's, an SVDF's) and resource variables keep their values from run to run. Where samples are
independent of each other, a state that lives on would make every result depend on the samples before it. A model
whose runs are steps of a stream (`Model.is_stream`) is another case: there the samples of a user are one, in their
order, because ranges and figures of first runs alone, with a state of zeros, say nothing about it.
"""

from collections.abc import Callable
from typing import Any

from edgepack.graph import Model


class FreshInterpreter:
    """An interpreter that returns to the initial state of its model, or continues a stream.

    Args:
        model: What the file contains.
        load: Returns an allocated interpreter of the file.
        stream: Whether the runs are a stream where the model is made for one: only the first starts from the initial
            state.
    """

    def __init__(self, model: Model, load: Callable[[], Any], *, stream: bool = False) -> None:
        self._load = load
        self._continues = stream and model.is_stream
        self._stateful = model.is_stateful
        # `reset_all_variables` resets variable tensors only.
        self._reload = model.has_resource_state
        self._used = False
        #: The interpreter; another object after `start` where the model has resource variables.
        self.interpreter = load()

    def start(self) -> Any:
        """Return the interpreter in the state of its next run; shapes may be those of the file again."""
        if self._continues:
            return self.interpreter
        if self._used and self._reload:
            self.interpreter = self._load()
        elif self._used and self._stateful:
            self.interpreter.reset_all_variables()
        self._used = True
        return self.interpreter
