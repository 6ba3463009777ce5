"""Results as HTML for notebooks: a table, the picture of `compare` where several files were measured, notes.

Every text is escaped by the template: names of layers and labels come from the model.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from edgepack.resources import templates_dir

if TYPE_CHECKING:
    from edgepack.pipeline.compare import ComparedScheme

#: Notes that are shown; the result has all of them.
_SHOWN = 12


def render(
    title: str,
    header: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    *,
    points: "Sequence[ComparedScheme]" = (),
    notes: Sequence[str] = (),
) -> str:
    """Return a fragment of HTML that needs no other file and no script.

    Args:
        title: First line.
        header: Titles of the columns.
        rows: Cells.
        points: Measured files, for the picture of size and accuracy; of fewer than two there is none.
        notes: Sentences below.
    """
    picture = None
    if len(points) > 1:
        from edgepack.pipeline.reports.compare_page import plot

        picture = plot(points)
    shown = list(notes[:_SHOWN])
    if len(notes) > _SHOWN:
        shown.append(f"and {len(notes) - _SHOWN} more")
    page: str = _template().render(title=title, header=header, rows=rows, plot=picture, notes=shown)
    return page


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir() / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("notebook.html.j2")
