"""The project file: what it says is what is built, and what is wrong in it is found with its line."""

from pathlib import Path

import pytest

from edgepack.choices import Effort
from edgepack.errors import ProjectError
from edgepack.project.cells import Project
from edgepack.project.reader import read_project


def project(folder: Path, text: str, **more: object) -> Project:
    """Return the project of a file."""
    file = folder / "edgepack.toml"
    file.write_text(text, encoding="utf-8")
    return read_project(file, **more)  # type: ignore[arg-type]


ZOO = """\
[project]
name = "zoo"

[defaults]
samples = "data/calibration.npz"
targets = ["edgetpu", "cpu"]
effort = "medium"

[defaults.target.edgetpu]
require-full = true

[[model]]
path = "models/kws.keras"
targets = ["hexagon@sm8550", "edgetpu"]
max-size = "500KB"
eval = "data:generate"

[model.target.edgetpu]
effort = "high"

[[model]]
path = "models/my net (1).tflite"
name = "net"
input-shape = { image = [1, 224, 224, 3] }
effort = "low"
"""


def test_a_cell_has_the_options_of_the_nearest_table(tmp_path: Path) -> None:
    """Defaults, defaults of a target, the model and the model's target override each other in this order."""
    zoo = project(tmp_path, ZOO)
    assert (zoo.name, zoo.out, zoo.cache) == ("zoo", tmp_path / "out", "")
    cells = {cell.id: cell for cell in zoo.cells}
    assert list(cells) == ["kws/hexagon@SM8550", "kws/edgetpu", "net/edgetpu", "net/cpu"]
    efforts = {cell.id: cell.options.effort for cell in zoo.cells}
    assert efforts == {
        "kws/hexagon@SM8550": Effort.MEDIUM, "kws/edgetpu": Effort.HIGH,
        "net/edgetpu": Effort.LOW, "net/cpu": Effort.LOW,
    }  # fmt: skip
    assert [cell.options.target.require_full for cell in zoo.cells] == [False, True, True, False]
    chip = cells["kws/hexagon@SM8550"]
    assert (chip.options.target.socs, chip.options.out) == (("SM8550",), tmp_path / "out" / "SM8550")
    assert chip.options.max_size == 500_000
    assert chip.options.eval == f"{tmp_path}/data:generate"
    net = cells["net/cpu"]
    assert (net.path, net.options.name) == (tmp_path / "models/my net (1).tflite", "net")
    assert net.options.samples == str(tmp_path / "data/calibration.npz")
    assert net.options.model.input_shapes == {"image": (1, 224, 224, 3)}


def test_the_command_line_wins(tmp_path: Path) -> None:
    """Options, targets and the folder of the command line replace those of the file."""
    zoo = project(tmp_path, ZOO, values={"effort": Effort.LOW}, targets=("cpu",), out=tmp_path / "elsewhere")
    assert [cell.id for cell in zoo.cells] == ["kws/cpu", "net/cpu"]
    assert {cell.options.effort for cell in zoo.cells} == {Effort.LOW}
    assert {cell.options.out for cell in zoo.cells} == {tmp_path / "elsewhere"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "[defaults]\nsample = 'x'\n[[model]]\npath = 'a'",
            2,
            "[defaults]: unknown key 'sample', did you mean 'samples'?",
        ),
    ],
)
def test_faults_have_their_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A fault is refused with its line and what was expected."""
    with pytest.raises(ProjectError) as caught:
        project(tmp_path, text)
    assert f"edgepack.toml:{line}: {message}" in str(caught.value).splitlines()
