"""The project file: what it says is what is built, and what is wrong in it is found with its line."""

import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack.choices import Effort
from edgepack.errors import ProjectError, UsageError
from edgepack.project.cells import Project
from edgepack.project.reader import default_name, read_project
from edgepack.project.selection import select_cells


def project(folder: Path, text: str, **more: Any) -> Project:
    """Return the project of a file."""
    file = folder / "edgepack.toml"
    file.write_text(text, encoding="utf-8")
    return read_project(file, **more)


ZOO = """\
[project]
name = "zoo"

[defaults]
samples = "data/calibration.npz"
targets = ["edgetpu", "cpu"]
effort = "medium"

[defaults.target.edgetpu]
require-full = true

[defaults.target."hexagon@SM8550"]
max-drop = 2

[[model]]
path = "models/kws.keras"
targets = ["hexagon@sm8550", "edgetpu", "hexagon"]
max-size = "500KB"
eval = "data:generate"

[model.target.edgetpu]
effort = "high"

[model.target.hexagon]
cut-tail = true

[[model]]
path = "models/my net (1).tflite"
name = "net"
input-shape = { image = [1, 224, 224, 3] }
effort = "low"
samples = ""
no-cache = true
"""


def test_a_cell_has_the_options_of_the_nearest_table(tmp_path: Path) -> None:
    """Defaults, defaults of a target, the model and the model's target override each other in this order."""
    zoo = project(tmp_path, ZOO)
    assert (zoo.name, zoo.out, zoo.cache) == ("zoo", tmp_path / "out", "")
    cells = {cell.id: cell for cell in zoo.cells}
    assert list(cells) == ["kws/hexagon@SM8550", "kws/edgetpu", "kws/hexagon", "net/edgetpu", "net/cpu"]
    efforts = [cell.options.effort for cell in zoo.cells]
    assert efforts == [Effort.MEDIUM, Effort.HIGH, Effort.MEDIUM, Effort.LOW, Effort.LOW]
    assert [cell.options.target.require_full for cell in zoo.cells] == [False, True, False, True, False]
    assert [cell.options.target.cut_tail for cell in zoo.cells] == [True, False, True, False, False]
    assert [cell.options.max_drop for cell in zoo.cells] == [2.0, None, None, None, None]
    chip = cells["kws/hexagon@SM8550"]
    assert (chip.options.target.socs, chip.options.out) == (("SM8550",), tmp_path / "out" / "SM8550")
    assert chip.options.max_size == 500_000
    assert chip.options.eval == f"{tmp_path}/data:generate"
    assert chip.options.samples == str(tmp_path / "data/calibration.npz")
    net = cells["net/cpu"]
    assert (net.path, net.options.name) == (tmp_path / "models/my net (1).tflite", "net")
    assert net.options.samples == ""
    assert not net.options.model.cache
    assert net.options.model.input_shapes == {"image": (1, 224, 224, 3)}


def test_bundles_of_a_project_are_replaced_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    """A second build of a project needs no --force; `force = false` asks for it."""
    zoo = project(tmp_path, "[[model]]\npath='a'\ntargets=['cpu']\n[[model]]\npath='b'\ntargets=['cpu']\nforce=false")
    assert [cell.options.force for cell in zoo.cells] == [True, False]


def test_the_shared_cache_is_that_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over EDGEPACK_CACHE_URL, and that over the file, whose URL is checked where it counts."""
    monkeypatch.delenv("EDGEPACK_CACHE_URL", raising=False)
    text = "[project]\ncache = 'file:///shared'\n[[model]]\npath='a'\ntargets=['cpu']\n"

    def url(**values: Any) -> str:
        return project(tmp_path, text, values=values).cells[0].options.model.cache_url

    assert url() == "file:///shared"
    assert url(cache="off") == "off"
    with pytest.raises(ProjectError, match=r"edgepack\.toml:2: \[project\]: cache: the cache URL"):
        project(tmp_path, text.replace("file:", "nowhere:"))
    monkeypatch.setenv("EDGEPACK_CACHE_URL", "s3://team-cache/edgepack")
    assert url() == "s3://team-cache/edgepack"
    assert url(cache="file:///mine") == "file:///mine"


def test_the_command_line_wins(tmp_path: Path) -> None:
    """Options, targets and the folder of the command line replace those of the file."""
    out = tmp_path / "elsewhere"
    zoo = project(tmp_path, ZOO, values={"effort": Effort.LOW}, targets=("cpu", "hexagon@SM8650"), out=out)
    assert [cell.id for cell in zoo.cells] == ["kws/cpu", "kws/hexagon@SM8650", "net/cpu", "net/hexagon@SM8650"]
    assert {cell.options.effort for cell in zoo.cells} == {Effort.LOW}
    assert [cell.options.out for cell in zoo.cells] == [out, out / "SM8650"] * 2
    with pytest.raises(UsageError, match="unknown target 'edgetp', did you mean 'edgetpu'"):
        project(tmp_path, ZOO, targets=("edgetp",))


MODEL = "[[model]]\npath = 'a.tflite'\ntargets = ['cpu']\n"
FAULTS = {
    "[defaults]\nsample = 'x'\n" + MODEL: "2: [defaults]: unknown key 'sample', did you mean 'samples'?",
    "[defaults]\nmax_drop = 1\n" + MODEL: "2: [defaults]: unknown key 'max_drop', did you mean 'max-drop'?",
    "[project]\nnmae = 'x'\n" + MODEL: "2: [project]: unknown key 'nmae', did you mean 'name'?",
    MODEL + "dry-run = true": "4: [[model]] 'a.tflite': unknown key 'dry-run': a flag only, because it concerns",
    "[models]\n" + MODEL: "1: unknown table or key 'models', did you mean 'model'?",
    "": "1: expected at least one [[model]], there is none",
    "model = 3": "1: expected at least one [[model]], got 3",
    "\n[[model]]\ntargets = ['cpu']": "2: [[model]] number 1: 'path' is missing: expected a path",
    MODEL + "\n\neffort = 'hgh'": "6: [[model]] 'a.tflite': effort: expected \"low\", \"medium\" or \"high\", got",
    MODEL + "strict = 1": "4: [[model]] 'a.tflite': strict: expected true or false, got 1",
    MODEL + "max-drop = -1": "4: [[model]] 'a.tflite': max-drop: expected a number from 0, or \"\" for none, got -1",
    MODEL + "max-drop = nan": "expected a number, got nan",
    MODEL + "epochs = 1979-05-27": "4: [[model]] 'a.tflite': epochs: expected an integer from 0, got datetime.date(",
    MODEL + "max-size = '0KB'": "4: [[model]] 'a.tflite': max-size: expected a size such as \"500KB\"",
    MODEL + "memory-limit = '1MB'": "4: [[model]] 'a.tflite': memory-limit: expected at least 64 MiB, got '1MB'",
    MODEL + "input-shape = {a = [0]}": "4: [[model]] 'a.tflite': input-shape: expected a table of shapes",
    MODEL + "labels = \"a\\u0000b\"": "4: [[model]] 'a.tflite': labels: expected a path, got 'a\\x00b'",
    MODEL + "name = '../evil'": "4: [[model]] '../evil': name: expected a name of at most 100 letters, digits,",
    MODEL + "[model.target.cpu]\ntimeout = 3.0": "5: [model.target.cpu]: unknown key 'timeout': it applies to the",
    MODEL + "[model.target.edgetpu]": "4: [[model]] 'a.tflite': target.edgetpu: the model's targets are cpu",
    MODEL + "[model.target.edgtpu]": "4: [[model]] 'a.tflite': unknown target 'edgtpu', did you mean 'edgetpu'?",
    MODEL + "[model.target.all]": "4: [[model]] 'a.tflite': target.all: options for all targets are keys of",
    "[[model]]\npath = 'a'\ntargets = ['edgetp']": "3: [[model]] 'a': unknown target 'edgetp', did you mean 'edgetpu'?",
    "[[model]]\npath = 'a'\ntargets = ['hexagon@SM9']": "3: [[model]] 'a': target hexagon has no SoC 'SM9'",
    "[[model]]\npath = 'a'\ntargets = ['cpu@SM8550']": "3: [[model]] 'a': 'cpu@SM8550': target cpu has no chips",
    "[[model]]\npath = 'a'\ntargets = ['cpu', 'cpu']": "3: [[model]] 'a': targets: expected a list of targets such as",
    "[[model]]\npath = 'a'\ntargets = ['all', 'cpu']": "3: [[model]] 'a': targets: 'cpu' is listed twice",
    "[[model]]\npath = 'a'\ntargets = ['hexagon@SM8550', 'hexagon@sm8550']": "3: [[model]] 'a': targets: 'hexagon@",
    "[[model]]\npath = 'a'": "1: [[model]] 'a': no targets: add targets",
    MODEL + MODEL: "4: [[model]] 'a.tflite': another model has the name 'a'; give it a name of its own",
    MODEL + "name = 'x.y'\n" + MODEL + "name = 'x_y'": "5: [[model]] 'x_y': 'x_y/cpu' and 'x.y/cpu' would be",
    "[[model]\npath = 1": "'edgepack.toml': not valid TOML: Expected",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS, ids=lambda text: FAULTS[text][:60])
def test_faults_have_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A fault is refused with its line, what was expected, and the nearest known key."""
    monkeypatch.chdir(tmp_path)
    Path("edgepack.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError) as caught:
        read_project(Path("edgepack.toml"))
    assert FAULTS[text] in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_faults_are_listed(tmp_path: Path) -> None:
    """One run shows every fault of a file, in the order of the lines."""
    with pytest.raises(ProjectError) as caught:
        project(tmp_path, "[defaults]\neffort = 1\nfoo = 2\n[[model]]\n\nbar = 3\n")
    assert [fault["line"] for fault in caught.value.details["faults"]] == [2, 3, 4, 6]
    assert str(caught.value).splitlines()[0] == "'edgepack.toml' has 4 faults"


def test_reading_runs_no_code(tmp_path: Path) -> None:
    """A file that names functions and code of models can be read: nothing of it is imported."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    zoo = project(tmp_path, MODEL + "samples = 'stranger:samples'\nallow-code = true\nsign-key = 'key.pem'")
    assert zoo.cells[0].options.samples == f"{tmp_path}/stranger:samples"
    assert "stranger" not in sys.modules


def test_names_select_cells(tmp_path: Path) -> None:
    """A name is that of a model, a cell, or a pattern of one; one that selects nothing is refused with the nearest."""
    zoo = project(tmp_path, ZOO)

    def select(*names: str) -> list[str]:
        return [cell.id for cell in select_cells(zoo, names)]

    assert len(select()) == 5
    assert select("net") == ["net/edgetpu", "net/cpu"]
    assert select("net/cpu", "kws/edgetpu") == ["kws/edgetpu", "net/cpu"]
    assert select("*/hexagon*") == ["kws/hexagon@SM8550", "kws/hexagon"]
    assert select("k*/edge???") == ["kws/edgetpu"]
    with pytest.raises(UsageError, match=r"'nett' is no model and no cell of 'edgepack\.toml', did you mean 'net'"):
        select("net", "nett")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.keras", "b"), ("mobilenet_v2_1.0_224.tflite", "mobilenet_v2_1.0_224"), ("my net (1).h5", "my-net-1"),
        ("saved/", "saved"), ("x/..", "x/.."), ("café.keras", "cafe"), ("-x.keras", "x"), (".keras", "model"),
    ],
)  # fmt: skip
def test_a_name_comes_from_the_file(path: str, name: str) -> None:
    """A model without a name has that of its file, in the characters of a name."""
    found = default_name(Path("/root") / path)
    assert found == (name if name != "x/.." else "root")


def test_a_model_can_be_without_a_limit_of_the_defaults(tmp_path: Path) -> None:
    """An empty text takes a limit or a choice back; it is no value of an option that always has one."""
    limits = 'max-drop = 1.0\nmax-size = "1MB"\nmemory-limit = "1GB"\nranges = "mse"\n'
    file = tmp_path / "edgepack.toml"
    file.write_text(
        f'[defaults]\ntargets = ["cpu"]\n{limits}[[model]]\npath = "a.tflite"\nmax-drop = ""\nmax-size = ""\n'
        'memory-limit = ""\nranges = ""\n[[model]]\npath = "b.tflite"\n'
    )
    free, limited = (cell.options for cell in read_project(file).cells)
    assert (free.max_drop, free.max_size, free.model.memory_limit, free.method) == (None, None, None, None)
    assert (limited.max_drop, limited.max_size) == (1.0, 1_000_000)
    file.write_text('[[model]]\npath = "a.tflite"\ntargets = ["cpu"]\nepochs = ""\n')
    with pytest.raises(ProjectError, match="epochs: expected an integer"):
        read_project(file)
