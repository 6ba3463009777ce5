"""Names, types and literals of the C and C++ loader."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.bundle import names
from edgepack.bundle.spec import BundleSpec

if TYPE_CHECKING:
    from edgepack.bundle.context import StepView, TensorView


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keywords of C11 and C++20, and what common headers and compilers define as macros in lower case.
_KEYWORDS = _set("""
    alignas alignof and and_eq asm assert atomic auto bitand bitor bool break case catch char char8_t char16_t char32_t
    class co_await co_return co_yield compl complex concept const const_cast consteval constexpr constinit continue
    decltype default delete do double dynamic_cast else enum errno explicit export extern false far final float for
    friend goto i386 if imaginary import inline int linux long major makedev minor module mutable namespace near new
    noexcept noreturn not not_eq nullptr offsetof operator or or_eq override private protected public register
    reinterpret_cast requires restrict return setjmp short signed sizeof static static_assert static_cast stderr stdin
    stdout struct switch template this thread_local throw true try typedef typeid typename typeof union unix unsigned
    using va_arg va_copy va_end va_list va_start virtual void volatile wchar_t while xor xor_eq
""")
# Names that the generated code uses where a model's names are in scope.
_USED = _set("best check edgepack error inputs k model options outputs result std")
_COLUMNS = 120
# Prefixes of system functions such as timer_create, names that CMake keeps, and headers' folders.
_MODELS_TAKEN = _set("""
    all clean cnd depend edgepack edgetpu edit_cache epoll help install main mq mtx package pthread rebuild_cache sem
    src std sys test tests thrd timer tss
""")

#: TFLite type -> (C type, values of it per element, number of the type in the runtimes' C APIs). Half precision and
#: truth values have no type that is the same in C and C++; complex numbers are pairs.
_TYPES = {
    "FLOAT32": ("float", 1, 1),
    "INT32": ("int32_t", 1, 2),
    "UINT8": ("uint8_t", 1, 3),
    "INT64": ("int64_t", 1, 4),
    "BOOL": ("uint8_t", 1, 6),
    "INT16": ("int16_t", 1, 7),
    "COMPLEX64": ("float", 2, 8),
    "INT8": ("int8_t", 1, 9),
    "FLOAT16": ("uint16_t", 1, 10),
    "FLOAT64": ("double", 1, 11),
    "COMPLEX128": ("double", 2, 12),
    "UINT64": ("uint64_t", 1, 13),
    "UINT32": ("uint32_t", 1, 16),
    "UINT16": ("uint16_t", 1, 17),
}

#: Compiler's major version -> runtime version that its files need; older compilers are answered with the first one.
_EDGETPU_RUNTIMES = ((0, 13), (16, 14))


@dataclass(frozen=True)
class CppTensor:
    """A tensor as the C and C++ templates see it.

    Attributes:
        view: What all templates see.
        field: Legal name in C and C++.
        macro: The same in capitals.
        type: C type of the typed API's values.
        count: How many values of that type.
        code: Number of the raw type in the runtimes' C APIs.
        scale: C literal of the float32 scale.
        labels: One text per value, empty when there are none or they do not rank real numbers.
        tail: What the loader does to an output's real values: initializers of `engine_step`.
    """

    view: "TensorView"
    field: str
    macro: str
    type: str
    count: int
    code: int
    scale: str
    labels: tuple[str, ...]
    tail: tuple[str, ...]


def c_name(name: str) -> str:
    """Return the prefix of the model's C functions, its C++ namespace, its headers' folder and its CMake target."""
    found = names.python_package(name)
    return f"{found}_model" if found in _KEYWORDS or found in _MODELS_TAKEN else found


def c_identifiers(texts: Iterable[str], fallback: str) -> list[str]:
    """Return a different name for each text that is legal in C and in C++."""

    def legal(text: str) -> str:
        found = names.snake(text, fallback)
        taken = found in _KEYWORDS or found in _USED or found.endswith("_t") or found.startswith("top_k_")
        return f"{found}_" if taken else found

    found: list[str] = []
    for text in texts:
        base = candidate = legal(text)
        number = 2
        # The capitals become macros, where a trailing underscore alone must tell names apart too.
        while candidate.upper() in {other.upper() for other in found}:
            candidate = f"{base}{number}"
            number += 1
        found.append(candidate)
    return found


def c_string(text: str) -> str:
    """Return a C string literal of the text in UTF-8, ASCII only; a zero byte, which would end it, becomes a space."""
    parts = []
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "?": "\\?", "\0": " "}
    for character in text:
        if character in special:
            # An escaped question mark starts no trigraph.
            parts.append(special[character])
        elif 0x20 <= ord(character) < 0x7F:
            parts.append(character)
        else:
            # Octal escapes end after three digits, hexadecimal ones would swallow a digit that follows.
            parts.extend(f"\\{byte:03o}" for byte in character.encode("utf-8", "replace"))
    return f'"{"".join(parts)}"'


def c_call(start: str, parameters: Sequence[str], end: str) -> str:
    """Return a declaration or a call in lines of at most 120, as clang-format lays it out.

    Args:
        start: Everything up to and with the opening parenthesis.
        parameters: One text each.
        end: Everything from the closing parenthesis on.
    """
    lines = [start]
    for number, parameter in enumerate(parameters):
        text = f"{parameter}{end if number == len(parameters) - 1 else ','}"
        first = number == 0
        if not first and len(lines[-1]) + 1 + len(text) > _COLUMNS:
            lines.append(" " * len(start) + text)
        else:
            lines[-1] += text if first else f" {text}"
    return "\n".join(lines)


def c_float(value: float) -> str:
    """Return a C literal of the same float32 value."""
    return names.kotlin_float(value)


def _step(step: "StepView") -> str:
    kind = {"float32": "ENGINE_FLOAT32", "int32": "ENGINE_INT32", "int64": "ENGINE_INT64"}[step.numpy]
    return f"{{ENGINE_{step.op}, {kind}, {step.outer}, {step.size}, {step.inner}, {c_float(step.beta)}}}"


def edgetpu_runtime(compiler_version: str) -> int:
    """Return the libedgetpu runtime version that a compiler's files need (16.0: 14; 15.0 and 14.1: 13)."""
    match = re.match(r"\d+", compiler_version)
    major = int(match.group()) if match else _EDGETPU_RUNTIMES[-1][0]
    return max(runtime for first, runtime in _EDGETPU_RUNTIMES if major >= first)


def cpp_context(spec: BundleSpec, inputs: Sequence["TensorView"], outputs: Sequence["TensorView"]) -> dict[str, Any]:
    """Return the variables of the C and C++ templates.

    Args:
        spec: The bundle.
        inputs: Inputs as all templates see them.
        outputs: The same for outputs.
    """
    name = c_name(spec.name)
    return {
        "c_name": name,
        "c_macro": name.upper(),
        "c_inputs": _tensors(spec, inputs, "input"),
        "c_outputs": _tensors(spec, outputs, "output"),
        "edgetpu_runtime": spec.compile.runtime_version or edgetpu_runtime(spec.compile.version),
    }


def _tensors(spec: BundleSpec, views: Sequence["TensorView"], kind: str) -> list[CppTensor]:
    fields = c_identifiers([view.name for view in views], kind)
    found = []
    for view, field in zip(views, fields, strict=True):
        plain, per_element, code = _TYPES[view.dtype]
        real = "float" if view.quantized else plain
        if view.tail:
            real, per_element, _ = _TYPES[view.public.dtype]
        ranked = kind == "output" and view.ranked and real == "float" and per_element == 1
        labels = spec.outputs[view.index].labels if ranked else ()
        found.append(
            CppTensor(
                view=view,
                field=field,
                macro=field.upper().rstrip("_"),
                type=real,
                count=view.public.elements * per_element,
                code=code,
                scale=c_float(view.scale),
                tail=tuple(_step(step) for step in view.tail),
                labels=tuple(" ".join(label.splitlines()) for label in labels),
            )
        )
    return found
