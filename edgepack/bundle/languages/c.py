"""The C and C++ loader: a CMake project with a C11 library and a C++17 wrapper."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.images import image_views
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.languages.c_tasks import c_task
from edgepack.bundle.languages.python import python_package
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.tasks import task_view
from edgepack.bundle.views import StepView, TensorView, label_lines
from edgepack.choices import Platform

# Keywords of C11 and C++20, and what common headers and compilers define as macros in lower case.
_KEYWORDS = names.word_set("""
    alignas alignof and and_eq asm assert atomic auto bitand bitor bool break case catch char char8_t char16_t char32_t
    class co_await co_return co_yield compl complex concept const const_cast consteval constexpr constinit continue
    decltype default delete do double dynamic_cast else enum errno explicit export extern false far final float for
    friend goto i386 if imaginary import inline int linux long major makedev minor module mutable namespace near new
    noexcept noreturn not not_eq nullptr offsetof operator or or_eq override private protected public register
    reinterpret_cast requires restrict return setjmp short signed sizeof static static_assert static_cast stderr stdin
    stdout struct switch template this thread_local throw true try typedef typeid typename typeof union unix unsigned
    using va_arg va_copy va_end va_list va_start virtual void volatile wchar_t while xor xor_eq
""")
# Names that the generated code itself uses where a model's names are in scope.
_USED = names.word_set("best check edgepack error inputs k model options outputs result std")
# Prefixes of system functions such as timer_create and of generated ones, names that CMake reserves, and folders of
# headers.
_MODELS_TAKEN = names.word_set("""
    all clean cnd converter depend edgepack edgetpu edit_cache engine epoll help install main mq mtx package pixels
    pthread rebuild_cache runtime sem src std sys task test tests thrd timer tss
""")
_COLUMNS = 120

#: Version of the generated C and C++ API, which find_package and pkg-config compare: the major part changes when
#: programs must change.
API_VERSION = "1.1.0"

#: TFLite type -> (C type, values of that type per element, number of the TFLite type in the runtimes' C APIs). Half
#: precision and booleans have no type that is the same in C and C++; complex numbers are pairs.
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


@dataclass(frozen=True)
class CTensor:
    """A tensor as the C and C++ templates see it.

    Attributes:
        view: The tensor as all templates see it.
        field: Identifier that is legal in C and C++.
        macro: The same in capitals.
        type: C type of the typed API's values.
        count: Number of values of that type.
        code: Number of the raw type in the runtimes' C APIs.
        public_code: The same of the typed API's values.
        scale: C literal of the float32 scale.
        labels: One text per value; empty when there are none or they do not rank real numbers.
        tail: Postprocessing steps of the loader: initializers of `engine_step`.
    """

    view: TensorView
    field: str
    macro: str
    type: str
    count: int
    code: int
    public_code: int
    scale: str
    labels: tuple[str, ...]
    tail: tuple[str, ...]


@dataclass(frozen=True)
class CImage:
    """The image input as the C templates see it.

    Attributes:
        width: In pixels.
        height: In pixels.
        mean: C literals, one per channel: red, green, blue, or grey alone.
        std: The same.
        fit: C constant: how frames get the input's size.
    """

    width: int
    height: int
    mean: tuple[str, ...]
    std: tuple[str, ...]
    fit: str


def c_name(name: str) -> str:
    """Return the prefix of the model's C functions, its C++ namespace, its headers' folder and its CMake target."""
    package = python_package(name)
    return f"{package}_model" if package in _KEYWORDS or package in _MODELS_TAKEN else package


def c_identifiers(texts: Iterable[str], fallback: str) -> list[str]:
    """Return a different name for each text that is legal in C and in C++."""

    def legal(text: str) -> str:
        identifier = names.snake(text, fallback)
        reserved = identifier in _KEYWORDS or identifier in _USED
        reserved = reserved or identifier.endswith("_t") or identifier.startswith("top_k_")
        return f"{identifier}_" if reserved else identifier

    return names.distinct(texts, legal)


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
    """Return a declaration or call in lines of at most 120 columns, in clang-format's layout.

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


class C(LoaderLanguage):
    """A C11 library with a C++17 wrapper, which loads the runtime's C library at run time."""

    id = "c"
    title = "C and C++"
    platforms = (Platform.LINUX,)

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return `c`, a string literal, and `ccall`, the layout of a declaration or call."""
        return {"c": c_string, "ccall": c_call}

    def placeholders(self, spec: BundleSpec) -> Mapping[str, str]:
        """Return `__cname__`."""
        return {"__cname__": c_name(spec.name)}

    def context(
        self, spec: BundleSpec, inputs: Sequence[TensorView], outputs: Sequence[TensorView]
    ) -> Mapping[str, Any]:
        """Return the library's names, and the tensors with identifiers, C types and literals."""
        name = c_name(spec.name)
        fields = _tensors(spec, inputs, "input")
        results = _tensors(spec, outputs, "output")
        image = _image(spec) if len(inputs) == 1 else None
        view = task_view(spec)
        task = None if view is None else c_task(view, name.upper(), inputs, outputs)
        stream = task is not None and task.kind == "audio" and [tensor.type for tensor in fields] == ["float"]
        return {
            "c_name": name,
            "c_macro": name.upper(),
            "api_version": API_VERSION,
            # Debian's package names: letters in lower case, digits, hyphens.
            "debian_name": f"edgepack-{name.lower().replace('_', '-')}",
            "c_inputs": fields,
            "cpp_parameters": [f"View<{tensor.type}> {tensor.field}" for tensor in fields],
            "c_outputs": results,
            "c_task": task,
            "c_stream": stream,
            # The model keeps the results of the last run for its task.
            "c_kept": task is not None and (image is not None or stream),
            "c_task_kind": "" if task is None else task.kind,
            "c_task_outputs": [] if task is None else [results[position] for position in task.spec.outputs],
            "c_image": image,
            # Results that are places in a frame need a mapping, whoever converted the frame.
            "c_mapping": image is not None or (task is not None and task.mapped),
        }


def _image(spec: BundleSpec) -> CImage | None:
    """Return the one input of a model that runs on frames."""
    view = next(iter(image_views(spec)), None)
    if view is None:
        return None
    mean, std = (tuple(names.float32_literal(value) for value in values) for values in (view.mean, view.std))
    fit = f"EDGEPACK_{view.fit.upper().replace('-', '_')}"
    return CImage(view.width, view.height, mean, std, fit)


def _tensors(spec: BundleSpec, views: Sequence[TensorView], kind: str) -> list[CTensor]:
    fields = c_identifiers([view.name for view in views], kind)
    tensors = []
    for view, field in zip(views, fields, strict=True):
        plain, per_element, code = _TYPES[view.dtype]
        real, public_code = ("float", _TYPES["FLOAT32"][2]) if view.quantized else (plain, code)
        if view.tail:
            real, per_element, public_code = _TYPES[view.public.dtype]
        ranked = kind == "output" and view.ranked and real == "float" and per_element == 1
        labels = spec.outputs[view.index].labels if ranked else ()
        tensors.append(
            CTensor(
                view=view,
                field=field,
                macro=field.upper().rstrip("_"),
                type=real,
                count=view.public.elements * per_element,
                code=code,
                public_code=public_code,
                scale=names.float32_literal(view.scale),
                tail=tuple(_step(step) for step in view.tail),
                labels=tuple(label_lines(labels)),
            )
        )
    return tensors


def _step(step: StepView) -> str:
    kind = {"float32": "ENGINE_FLOAT32", "int32": "ENGINE_INT32", "int64": "ENGINE_INT64"}[step.numpy]
    beta = names.float32_literal(step.beta)
    return f"{{ENGINE_{step.op}, {kind}, {step.outer}, {step.size}, {step.inner}, {beta}}}"
