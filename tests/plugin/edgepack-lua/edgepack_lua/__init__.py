"""A loader language in one file: a Lua module that describes the model, in every Linux bundle."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.views import TensorView
from edgepack.choices import Platform

_KEYWORDS = names.word_set("""
    and break do else elseif end false for function goto if in local nil not or repeat return then true until while
""")


def lua_name(name: str, fallback: str = "model") -> str:
    """Return a name that is no keyword of Lua."""
    text = names.snake(name, fallback)
    return f"{text}_" if text in _KEYWORDS else text


def lua_string(text: str) -> str:
    """Return a Lua string literal of the text in UTF-8."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode("utf-8", "replace")) + '"'


class Lua(LoaderLanguage):
    """A module that describes inputs and outputs."""

    id = "lua"
    title = "Lua"
    platforms = (Platform.LINUX,)

    @property
    def folder(self) -> Path:
        """The package's own templates."""
        return Path(__file__).parent / "templates"

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return `lua`, a string literal."""
        return {"lua": lua_string}

    def placeholders(self, spec: BundleSpec) -> Mapping[str, str]:
        """Return `__luaname__`."""
        return {"__luaname__": lua_name(spec.name)}

    def context(
        self, spec: BundleSpec, inputs: Sequence[TensorView], outputs: Sequence[TensorView]
    ) -> Mapping[str, Any]:
        """Return each tensor with its name in Lua."""
        return {
            "lua_module": lua_name(spec.name),
            "lua_inputs": _named(inputs, "input"),
            "lua_outputs": _named(outputs, "output"),
        }


def _named(views: Sequence[TensorView], fallback: str) -> list[tuple[str, TensorView]]:
    identifiers = names.distinct([view.name for view in views], lambda text: lua_name(text, fallback))
    return list(zip(identifiers, views, strict=True))
