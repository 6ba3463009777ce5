"""Self-contained HTML pages from the templates of reports: no network, light and dark, readable on a phone."""

from typing import Any

from edgepack.resources import templates_dir


def render_page(template: str, **values: Any) -> str:
    """Return a page; every value is escaped, because names come from files that strangers may write.

    Args:
        template: Name of a file under templates/report.
        **values: Variables of the template; one that is missing is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates_dir() / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
