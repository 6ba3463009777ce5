"""Help pages: options in panels, real metavars, 80 columns.

Typer groups options into panels only through Rich, which takes longer to import than every other part of `--help`.
These classes write the same panels (`rich_help_panel` of each option) as plain text with Click's own formatter.
"""

import textwrap
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from edgepack.project.definition import Panel

#: Panels of options that are declared in a command; those of the table of options are `definition.Panel`.
MODEL, DATA, TARGET, BUNDLE, RUN, OUTPUT = map(
    str, (Panel.MODEL, Panel.DATA, Panel.TARGET, Panel.BUNDLE, Panel.RUN, Panel.OUTPUT)
)
TRAINING, DEVICE, SIGNATURE, REGISTRY = "Training", "Device", "Signature", "Registry"

#: Width of the help page in columns where the terminal has more.
MAX_WIDTH = 100
#: Context settings of every command and group.
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH}


class Command(TyperCommand):
    """A command whose help lists its options in panels."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in the usage line."""
        return ["[OPTIONS]", *(_name(entry) for entry in self.get_params(ctx) if isinstance(entry, TyperArgument))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel, in the order in which the panels are first named."""
        _write_sections(_panels(self.get_params(ctx), ctx), formatter)


class Group(TyperGroup):
    """A group of commands; called without one, it prints its help on stdout and ends with exit code 2."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands first, then the options."""
        commands = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        _write_sections({"Commands": commands, **_panels(self.get_params(ctx), ctx)}, formatter)


def require_command(context: typer.Context) -> None:
    """Print the help of a group that was called without a command.

    Raises:
        typer.Exit: With exit code 2, as Click ends such a call.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def group(help_text: str) -> typer.Typer:
    """Return a command group that prints its help when it is called without a command."""
    return typer.Typer(
        cls=Group,
        help=help_text,
        callback=require_command,
        invoke_without_command=True,
        rich_markup_mode=None,
        context_settings=SETTINGS,
    )


def _panels(parameters: list[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the rows of each panel; a single panel of options is called `Options`."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        if not parameter.hidden:
            panel = "Arguments" if isinstance(parameter, TyperArgument) else parameter.rich_help_panel or RUN
            rows.setdefault(panel, []).append((_name(parameter), _text(parameter, ctx)))
    if rows.keys() <= {"Arguments", RUN}:
        rows["Options"] = rows.pop(RUN)
    return rows


def _write_sections(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    """Write definition lists with one common column; Click's own breaks lines inside words such as `ai-pack`."""
    left = 4 + max(len(name) for rows in sections.values() for name, _ in rows)
    for title, rows in sections.items():
        formatter.write(f"\n{title}:\n")
        for name, text in rows:
            line = f"  {name}".ljust(left) + text
            wrapped = textwrap.fill(
                line,
                formatter.width,
                subsequent_indent=" " * left,
                break_on_hyphens=False,
                break_long_words=False,
            )
            formatter.write(f"{wrapped}\n")


def _name(parameter: TyperArgument | TyperOption) -> str:
    """Return `-o, --out DIR`."""
    if isinstance(parameter, TyperArgument):
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _text(parameter: TyperArgument | TyperOption, ctx: Any) -> str:
    """Return the help of a parameter, followed by its values and its default."""
    notes = []
    if parameter.type_descriptor.choices:
        notes.append(" | ".join(str(choice) for choice in parameter.type_descriptor.choices))
    if parameter.required:
        notes.append("required")
    elif isinstance(parameter.show_default, str):
        notes.append(f"default: {parameter.show_default}")
    elif parameter.show_default and not isinstance(default := parameter.get_default(ctx), bool):
        shown = f"{default:g}" if isinstance(default, int | float) else str(default)
        notes.append(f"default: {shown}" if default not in (None, "", []) else "")
    text = "; ".join(note for note in notes if note)
    return f"{parameter.help or ''} [{text}]".strip() if text else parameter.help or ""
