"""`edgepack targets list | show | lint`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, completion, output
from edgepack.cli import help as panels

if TYPE_CHECKING:
    from edgepack.profiles.model import TargetProfile


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = panels.group("List the installed targets, show one, or validate a profile.")
    group.command("list", cls=panels.Command)(list_)
    group.command("show", cls=panels.Command)(show)
    group.command("lint", cls=panels.Command)(lint)
    app.add_typer(group, name="targets")


def list_(json_: bool = arguments.JSON) -> int:
    """List the installed targets and the schemes that each supports."""
    from edgepack.profiles.registry import all_targets, warnings

    profiles = all_targets()
    if json_:
        output.document("targets list", [_short(p) for p in profiles.values()], warnings=list(warnings()))
        return 0
    rows = [(p.id, p.title, ", ".join(rule.scheme for rule in p.schemes)) for p in profiles.values()]
    output.out(output.table(("target", "hardware", "schemes in order of preference"), rows))
    for text in warnings():
        output.warn(text)
    return 0


def show(
    target: str = typer.Argument(
        ..., metavar="ID", help="Target id.", show_default=False, autocompletion=completion.target_ids
    ),
    json_: bool = arguments.JSON,
) -> int:
    """Show one target: schemes, variants, chips, compiler, ops and sources."""
    from edgepack.profiles.registry import get_target

    profile = get_target(target)
    if json_:
        output.document("targets show", [_long(profile)])
    else:
        _print(profile)
    return 0


def lint(
    file: Path = typer.Argument(..., metavar="PATH", help="A profile.toml, or its folder.", show_default=False),
    json_: bool = arguments.JSON,
) -> int:
    """Validate a profile and report every fault at once."""
    from edgepack.profiles.load import load_profile

    profile = load_profile(arguments.require_path(file))
    if json_:
        output.document("targets lint", [_short(profile)])
    else:
        output.out(f"{profile.id}: valid; {len(profile.ops.ops)} ops, {len(profile.sources)} sources")
    return 0


def _short(profile: "TargetProfile") -> dict[str, Any]:
    return {
        "target": profile.id,
        "title": profile.title,
        "summary": profile.summary,
        "schemes": [rule.scheme for rule in profile.schemes],
        "variants": [variant.id for variant in profile.variants],
        "compiler": None if profile.compiler is None else profile.compiler.id,
        "sha256": profile.sha256,
    }


def _long(profile: "TargetProfile") -> dict[str, Any]:
    return {
        **_short(profile),
        "rules": [
            {"scheme": r.scheme, "io": r.io, "fully_connected": r.fully_connected, "chip": dict(r.chip), "why": r.why}
            for r in profile.variants[0].schemes
        ],
        "batch": profile.batch,
        "fallback": profile.fallback,
        "socs": {soc: dict(facts) for soc, facts in sorted(profile.socs.items())},
        "ops": {op: dict(rule.constraints) for op, rule in sorted(profile.ops.ops.items())},
        "refused": dict(sorted(profile.ops.refused.items())),
        "sources": [
            {"id": s.id, "url": s.url, "fact": s.fact, "level": s.level, "by": s.by, "date": s.date, "about": s.about}
            for s in profile.sources
        ],
    }


def _print(profile: "TargetProfile") -> None:
    from edgepack.profiles.variants import chips_for
    from edgepack.schemes import SCHEMES

    output.out(output.wrap(f"{profile.id}: {profile.title}"))
    output.out(output.wrap(f"  {profile.summary}", "  "))
    output.out("schemes, in order of preference:")
    for rule in profile.variants[0].schemes:
        scheme = SCHEMES[rule.scheme]
        where = f"; on {', '.join(chips_for(profile, rule.scheme))} only" if rule.chip else ""
        output.out(
            output.wrap(f"  {rule.scheme}: inputs and outputs {rule.io}; needs {scheme.need_text}{where}", "    ")
        )
    if len(profile.variants) > 1:
        output.out("variants (--variant):")
        for variant in profile.variants:
            output.out(output.wrap(f"  {variant.id}: {variant.title}", "    "))
    if profile.socs:
        output.out(output.wrap(f"chips (--soc): {', '.join(sorted(profile.socs))}"))
    if profile.compiler is not None:
        output.out(f"compiler: {profile.compiler.id} ({profile.compiler.policy})")
        if profile.compiler.install:
            output.out(output.wrap(f"  to install: {profile.compiler.install}", "    "))
    output.out(output.wrap(f"ops: {', '.join(sorted(profile.ops.ops))}"))
    output.out("sources:")
    for source in profile.sources:
        output.out(output.wrap(f"  {source.id} [{source.basis}]: {source.fact} {source.url}".rstrip(), "    "))
