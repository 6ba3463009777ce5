"""Names and strings: legal everywhere, and unable to leave their place."""

import ast
import json
import keyword
import re
import tomllib
import xml.etree.ElementTree as ElementTree

import pytest

from edgepack.bundle import names
from edgepack.bundle.android import gradle_module
from edgepack.bundle.context import class_name
from edgepack.bundle.languages.c import c_call
from edgepack.bundle.languages.java import java_call
from edgepack.bundle.languages.jvm import jvm_identifiers, jvm_package
from edgepack.bundle.languages.kotlin import kotlin_string
from edgepack.bundle.languages.python import distribution, python_identifiers, python_package, python_string

NASTY = [
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\system32",
    "con",
    "my model",
    "My-Model.v2 (final)",
    "2fast",
    "class",
    "None",
    "val",
    "import",
    "numpy",
    "json",
    "self",
    "top_k",
    "__init__",
    "_private",
    "naïve café",
    "モデル",
    "模型",
    "😀",
    "a" * 500,
    'x"; System.exit(1); //',
    "$HOME ${runner}",
    "'''",
    '"""\nimport os\n',
    "*/ class Evil /*",
    "</manifest>",
    "{{ 7 * 7 }}",
    "a\0b\nc\rd\te",
    "\ud800",
    "serving_default_x:0",
    "StatefulPartitionedCall:0",
    "StringModel",
    "Interpreter",
]


@pytest.mark.parametrize("name", NASTY)
def test_identifiers_are_legal_for_any_name(name: str) -> None:
    """Every text gives a legal, short, ASCII name in each place a bundle needs one."""
    package = python_package(name)
    assert package.isidentifier() and not keyword.iskeyword(package) and re.fullmatch(r"[a-z][a-z0-9_]*", package)
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]|[a-z]", distribution(name))
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", class_name(name))
    assert re.fullmatch(r"[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)+", jvm_package("com.example", name))
    assert re.fullmatch(r"[a-z][a-z0-9-]*", gradle_module(name))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", names.file_stem(name))
    assert max(len(names.file_stem(name)), len(package), len(class_name(name))) < 64


@pytest.mark.parametrize("name", ["json", "numpy", "edgepack", "ai_edge_litert", "class", "match"])
def test_a_package_never_hides_another(name: str) -> None:
    """A model named like a standard or needed module does not shadow it."""
    assert python_package(name) == f"{name}_model"


@pytest.mark.parametrize(
    "prefix", ["", "...", "com.class.1st", "com..example", "Com.My App", "com.example; import evil"]
)
def test_android_prefixes_become_legal_packages(prefix: str) -> None:
    """For any --package, the Kotlin package has legal segments and no keyword."""
    package = jvm_package(prefix, "model")
    assert re.fullmatch(r"[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)+", package)
    assert not {"class", "package", "import"} & set(package.split("."))


def test_tensor_names_stay_apart() -> None:
    """Different tensors get different names, even if only punctuation, case or dropped letters differ."""
    texts = ["a b", "a-b", "A_B", "", "", "モ", "デ", "class", "x:0", "x:1"]
    for found in (python_identifiers(texts, "input"), jvm_identifiers(texts, "input")):
        assert len({name.lower() for name in found}) == len(texts)
        assert all(name.isidentifier() and not keyword.iskeyword(name) for name in found)


def test_names_that_lose_every_letter_still_differ() -> None:
    """Two models with names in other scripts do not become one package."""
    assert python_package("モデル") != python_package("模型")


@pytest.mark.parametrize("text", NASTY)
def test_python_strings_read_back(text: str) -> None:
    """A Python literal is ASCII and evaluates to exactly the text."""
    literal = python_string(text)
    assert literal.isascii() and ast.literal_eval(literal) == text


@pytest.mark.parametrize("text", NASTY)
def test_kotlin_strings_hold_no_template_and_no_quote(text: str) -> None:
    """A Kotlin literal is ASCII, starts no template, and reads back; its escapes are JSON's plus the dollar's."""
    literal = kotlin_string(text)
    assert literal.isascii() and not re.search(r"(?<!\\)(\\\\)*\$", literal)
    assert json.loads(re.sub(r"(\\\\)|\\\$", lambda match: match.group(1) or "$", literal)) == text


@pytest.mark.parametrize("text", NASTY)
def test_toml_and_xml_read_back(text: str) -> None:
    """A TOML string and an XML attribute give the text back, with U+FFFD for what the format does not allow."""
    surrogates = re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert tomllib.loads(f"x = {names.toml_string(text)}")["x"] == surrogates
    element = ElementTree.fromstring(f'<a b="{names.xml_text(text)}"/>')
    assert element.get("b") == surrogates.replace("\0", "\ufffd").replace("\t", " ")


@pytest.mark.parametrize("text", NASTY)
def test_comments_cannot_end(text: str) -> None:
    """Text in a comment or docstring stays on its line and contains nothing that ends either."""
    comment = names.comment_text(text)
    assert len(comment.splitlines()) <= 1
    assert not any(mark in comment for mark in ("*/", "/*", '"""', "\\"))
    assert ast.literal_eval(f'"""{comment}: x"""')


@pytest.mark.parametrize("text", ["`", "a`b``c", "`x`", "| a | b", ""])
def test_code_spans_hold_backticks(text: str) -> None:
    """A Markdown code span is fenced by more backticks than it contains and breaks no table."""
    span = names.markdown_code(text)
    fence = re.match(r"`+", span)
    assert fence and span.endswith(fence.group()) and not re.search(r"(?<!\\)\|", span)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, ["  int run(int number0, int number1) {"]),
        (7, ["  int run(", "      " + ", ".join(f"int number{n}" for n in range(7)) + ") {"]),
        (8, ["  int run(", *[f"      int number{n}," for n in range(7)], "      int number7) {"]),
    ],
)
def test_java_is_laid_out_as_its_formatter_does(count: int, expected: list[str]) -> None:
    """On one line, else all on the next, else one per line; never beyond column 100."""
    text = java_call("  int run(", [f"int number{n}" for n in range(count)], ") {")
    assert text.splitlines() == expected
    assert max(map(len, text.splitlines())) <= 100


def test_c_is_laid_out_as_its_formatter_does() -> None:
    """Lines are filled up to column 120 and go on below the first parameter."""
    short = c_call("int run(", ["int a", "int b"], ");")
    assert short == "int run(int a, int b);"
    lines = c_call("int run(", [f"const int *number{n}" for n in range(8)], ") {").splitlines()
    assert len(lines) == 2 and lines[1].startswith("        const int *number5") and lines[1].endswith("number7) {")
    assert max(map(len, lines)) <= 120
