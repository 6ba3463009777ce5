"""Lines of keys: a fault is shown where it is, whatever form of TOML the file is written in."""

import re
import tomllib
from typing import Any

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.project.lines import key_lines, line_of

TEXT = """\
# comment [not.a.table]
project.name = "x"  # [[model]]
title = '''
[[model]]
path = 1
'''

[defaults]
"effort" = "low"
  target.edgetpu.strict = true
[[model]]
path = 'a'
input-shape = { image = [1, 2,
  3], "b c" = [1] }  # { [
[model.target.edgetpu]
cut-tail = true
[ model . target . "hexagon@SM8550" ]
list = [ {a = 1}, [2,
  {b = "]}\\""}] ]
[[model]]
path = \"\"\"
x\\\"\"\"\"\"\"
name = "b"
"""


def test_keys_of_all_forms_have_their_line() -> None:
    """Dotted and quoted keys, texts of many lines, inline tables and lists in lists."""
    lines = key_lines(TEXT)
    assert {path: line for path, line in lines.items() if len(path) > 1 and isinstance(path[-1], str)} == {
        ("project", "name"): 2,
        ("defaults", "effort"): 9,
        ("defaults", "target"): 10,
        ("defaults", "target", "edgetpu"): 10,
        ("defaults", "target", "edgetpu", "strict"): 10,
        ("model", 0, "path"): 12,
        ("model", 0, "input-shape"): 13,
        ("model", 0, "input-shape", "image"): 13,
        ("model", 0, "input-shape", "b c"): 14,
        ("model", 0, "target"): 15,
        ("model", 0, "target", "edgetpu"): 15,
        ("model", 0, "target", "edgetpu", "cut-tail"): 16,
        ("model", 0, "target", "hexagon@SM8550"): 17,
        ("model", 0, "target", "hexagon@SM8550", "list"): 18,
        ("model", 0, "target", "hexagon@SM8550", "list", 0, "a"): 18,
        ("model", 0, "target", "hexagon@SM8550", "list", 1, 1, "b"): 19,
        ("model", 1, "path"): 21,
        ("model", 1, "name"): 23,
    }
    assert (lines[("model", 0)], lines[("model", 1)]) == (11, 20)


def test_a_missing_key_has_the_line_of_its_table() -> None:
    """A fault in a place that the text does not have is shown at the table around it."""
    lines = key_lines(TEXT)
    assert line_of(lines, ("model", 1, "targets")) == 20
    assert line_of(lines, ("defaults", "target", "edgetpu", "scheme")) == 10
    assert line_of(lines, ()) == 1


TEXTS = st.text(st.sampled_from(list("ab.#=[]{}\"'\\\n ,é")), max_size=8)
KEYS = st.text(st.sampled_from(list("ab.#=[]\"'é -")), min_size=1, max_size=4)
VALUES = st.recursive(
    TEXTS | st.integers(0, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(document=st.dictionaries(KEYS, VALUES, max_size=4), multiline=st.booleans())
def test_every_key_of_any_document_is_on_its_line(document: dict[str, Any], multiline: bool) -> None:
    """Whatever keys and texts contain, each key of a document has a line, and that line contains it."""
    text = tomli_w.dumps(document, multiline_strings=multiline)
    parsed = tomllib.loads(text)
    lines, shown = key_lines(text), text.split("\n")

    def keys(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for key, inner in items for found in [(*path, key), *keys(inner, (*path, key))]]

    for path in keys(parsed, ()):
        if isinstance(path[-1], str):
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", path[-1])
            written = path[-1] if plain else tomli_w.dumps({path[-1]: 0}).split(" = ")[0]
            assert written in shown[lines[path] - 1], (path, text)
