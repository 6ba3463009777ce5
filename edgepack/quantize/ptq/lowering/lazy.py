"""TensorFlow, imported at the first use: a process that only imports this package stays light."""

from collections.abc import Callable
from functools import reduce
from typing import Any


class _TensorFlow:
    """The module `tensorflow`."""

    def __getattr__(self, name: str) -> Any:
        import tensorflow

        return getattr(tensorflow, name)


#: Any, because TensorFlow has no types.
tf: Any = _TensorFlow()


def function(name: str) -> Callable[..., Any]:
    """Return a function of TensorFlow by its dotted name such as `math.ceil`, which is looked up when it is called."""

    def call(*arguments: Any, **options: Any) -> Any:
        return reduce(getattr, name.split("."), tf)(*arguments, **options)

    return call
