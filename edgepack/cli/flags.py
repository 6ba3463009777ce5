"""The flags of build, check and compare, made from the table of options that the project file is read by, too."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo

from edgepack.choices import parse_choice
from edgepack.cli import completion
from edgepack.pipeline.option_values import parse_input_shape
from edgepack.pipeline.options import BuildOptions
from edgepack.project.definition import Kind, Option, Panel
from edgepack.project.option_table import BY_NAME, options_of
from edgepack.project.values import build_options, default_of, stored_value

#: Python type of a flag's value.
_TYPES: Mapping[Kind, Any] = {
    Kind.FLAG: bool,
    Kind.INTEGER: int | None,
    Kind.NUMBER: float | None,
    Kind.PATH: Path | None,
    Kind.PATHS: list[Path],
    Kind.TEXTS: list[str],
    Kind.SHAPES: list[str],
}
_LISTS = (Kind.PATHS, Kind.TEXTS, Kind.SHAPES)


@dataclass(frozen=True)
class Given:
    """The flags that the user wrote.

    Attributes:
        texts: Value of each flag by its name, as typed.
    """

    texts: Mapping[str, Any]

    def values(self, root: Path = Path()) -> dict[str, Any]:
        """Return the value of each option of a build by its name, as `BuildOptions` needs it.

        Args:
            root: Folder that relative paths start from; the default leaves them as they are.

        Raises:
            UsageError: A value has the wrong form.
        """
        checked_cache_url(self.get("cache", ""))
        return {
            name: stored_value(BY_NAME[name], input_shapes(value) if name == "input-shape" else value, root)
            for name, value in self.texts.items()
            if BY_NAME[name].attribute
        }

    def options(self) -> BuildOptions:
        """Return the options of a build that the flags describe.

        Raises:
            UsageError: A value has the wrong form.
        """
        return build_options(self.values())

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a flag as typed, the default for a flag that was not given."""
        return self.texts.get(name, default)

    @property
    def json(self) -> bool:
        """Whether the output is one JSON document."""
        return bool(self.get("json"))

    @property
    def targets(self) -> list[str]:
        """The targets, empty for none."""
        return list(self.get("target", ()))


def checked_cache_url(url: str) -> str:
    """Return the URL of a shared cache, or an empty text.

    Raises:
        UsageError: It is no URL of a shared cache.
    """
    if url:
        from edgepack.remote_cache import shared_cache_url

        shared_cache_url(url)
    return url


def input_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Return shapes by the name of the input.

    Raises:
        UsageError: A text is not NAME=1,2,3.
    """
    return dict(map(parse_input_shape, texts))


def flag_of(option: Option, command: str = "build") -> Any:
    """Return the default of a parameter that makes it the flag of an option, with the help of a command."""
    variation = option.variation(command)
    default = default_of(option)
    names = [option.short, option.flag] if option.short else [option.flag]
    common: dict[str, Any] = {
        "help": variation.help or option.help,
        "rich_help_panel": str(variation.panel or option.panel),
    }
    if option.kind == Kind.FLAG:
        return typer.Option(False, *names, **common)
    if option.choices is not None:
        common["parser"] = partial(parse_choice, option.flag, option.choices)
        common["autocompletion"] = completion.values_of(option.choices)
    if option.name == "target":
        common["autocompletion"] = completion.target_ids
    return typer.Option(
        [] if option.kind in _LISTS else default or None,
        *names,
        metavar=option.metavar,
        show_default=variation.show_default or option.show_default or True,
        min=option.minimum,
        **common,
    )


def table_flags(command: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that gives a function the flags of a command.

    The function gets them as its first argument, a `Given`; its other parameters stay as they are, and on the help page
    its own flags come before the panel `Run`.
    """
    options = options_of(command)

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def run(context: typer.Context, **values: Any) -> int:
            texts = {}
            for option in options:
                value = values.pop(_parameter(option))
                source = context.get_parameter_source(_parameter(option))
                if source is not None and source.name != "DEFAULT":
                    texts[option.name] = value
            return function(Given(texts), **values)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        made = [(option.panel, _signature(option, command)) for option in options]
        parameters = [
            inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(entry for entry in own if isinstance(entry.default, ArgumentInfo)),
            *(made for panel, made in made if panel != Panel.RUN),
            *(entry for entry in own if not isinstance(entry.default, ArgumentInfo)),
            *(made for panel, made in made if panel == Panel.RUN),
        ]
        parameters = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in parameters]
        vars(run)["__signature__"] = inspect.Signature(parameters, return_annotation=int)
        run.__annotations__ = {entry.name: entry.annotation for entry in parameters} | {"return": int}
        return run

    return decorate


def _parameter(option: Option) -> str:
    # `json` and `compile` would hide names of Python in the function's signature.
    return f"{option.parameter}_"


def _signature(option: Option, command: str) -> inspect.Parameter:
    kind = option.choices if option.choices is not None else _TYPES.get(option.kind, str)
    annotation = kind | None if option.choices is not None and not default_of(option) else kind
    return inspect.Parameter(
        _parameter(option),
        inspect.Parameter.KEYWORD_ONLY,
        default=flag_of(option, command),
        annotation=annotation,
    )
