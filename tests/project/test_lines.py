"""Lines of keys: a fault is shown where it is, whatever form of TOML the file is written in."""

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
