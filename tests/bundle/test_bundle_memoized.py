"""Promise: a bundle from the cache has the bytes of a rendered one, and a change of anything renders it again."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from bundle_specs import TEMPLATES, profile_of, tiny_spec

from edgepack.bundle import render as render_module
from edgepack.bundle.languages import registry
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec, CheckedFor, Golden
from edgepack.pipeline import rendering
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.session import Session
from edgepack.resources import builtin_target_dir


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ModelOptions()) as session:
        yield session


def builtin(target: str, **changes: Any) -> BundleSpec:
    """Return a spec of a target that comes with edgepack."""
    return tiny_spec(target, profile=profile_of(target, folder=builtin_target_dir(target)), **changes)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Targets in the order in which they were rendered."""
    rendered: list[str] = []

    def record(spec: BundleSpec) -> dict[str, bytes]:
        rendered.append(spec.profile.id)
        return render(spec)

    monkeypatch.setattr(rendering, "render", record)
    return rendered


@pytest.mark.parametrize("target", TEMPLATES)
def test_the_same_bytes_in_the_next_command(target: str, session: Session, runs: list[str]) -> None:
    """Every file and its place in the order, also in another process's session."""
    spec = builtin(target)
    first = rendering.rendered(session, spec)
    session.steps.finish_writing()
    with Session(ModelOptions()) as other:
        again = rendering.rendered(other, spec)
    assert first == again == render(spec) and list(again) == list(render(spec))
    assert runs == [target]


def _golden(spec: BundleSpec) -> Golden:
    (case,) = spec.golden.cases
    outputs = [array.copy() for array in case.outputs]
    outputs[1] = np.nextafter(outputs[1], np.float32(np.inf))
    return replace(spec.golden, cases=(replace(case, outputs=tuple(outputs)),))


CHANGES: dict[str, Callable[[BundleSpec], dict[str, Any]]] = {
    "model": lambda spec: {"models": (replace(spec.models[0], data=spec.models[0].data + b"?"), *spec.models[1:])},
    "golden": lambda spec: {"golden": _golden(spec)},
    "spread": lambda spec: {"golden": replace(spec.golden, spread_steps=1)},
    "machine": lambda spec: {"golden": replace(spec.golden, machine="aarch64")},
    "label": lambda spec: {"outputs": (replace(spec.outputs[0], labels=("a", "b", "c")), *spec.outputs[1:])},
    "warning": lambda spec: {"warnings": ("it is hot",)},
    "quality": lambda spec: {"quality": {**(spec.quality or {}), "snr_db": 30.4}},
    "checked": lambda spec: {"checked": CheckedFor("other")},
    "profile": lambda spec: {"profile": replace(spec.profile, sha256="1" * 64)},
    "option": lambda spec: {"profile": replace(spec.profile, bundle=replace(spec.profile.bundle, options={"x": 1}))},
    "prefix": lambda spec: {"android_package": "org.other"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_spec_has_another_key(change: str, session: Session) -> None:
    """Each part of a spec counts, down to the last bit of a golden output."""
    spec = builtin("cpu")
    keys = {
        session.steps.key("render", rendering._inputs(one)) for one in (spec, replace(spec, **CHANGES[change](spec)))
    }
    assert len(keys) == 2


def test_every_field_counts() -> None:
    """A field that is added to the spec is part of the key without anyone thinking of it."""
    inputs = rendering._inputs(builtin("cpu"))
    assert {*inputs["spec"], "profile", "golden"} == {field.name for field in fields(BundleSpec)}


def test_a_changed_template_is_rendered(session: Session, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The templates are files of their own, which no digest of the code covers."""
    spec = builtin("cpu")
    rendering.rendered(session, spec)
    monkeypatch.setattr(rendering, "hash_path", lambda path: "another")
    rendering.rendered(session, spec)
    assert runs == ["cpu", "cpu"]


def test_code_of_others_runs_each_time(session: Session, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A target or a loader language of another package may read anything."""
    foreign = tiny_spec("cpu")
    for _ in range(2):
        rendering.rendered(session, foreign)
    language = type("Lua", (registry.LoaderLanguage,), {"__module__": "lua_loader", "id": "lua"})()
    monkeypatch.setattr(rendering, "all_languages", lambda: {"lua": language})
    for _ in range(2):
        rendering.rendered(session, builtin("cpu"))
    assert runs == ["cpu"] * 4


def test_templates_are_ready_before_the_first_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a child converts, every template of the targets is compiled; no bundle compiles one then."""
    monkeypatch.setattr(render_module, "_environments", {})
    profiles = [profile_of(target, folder=builtin_target_dir(target)) for target in TEMPLATES]
    rendering.prepare_rendering(profiles, "kotlin")
    compiled: list[str] = []
    monkeypatch.setattr(
        "jinja2.Environment.compile", lambda self, source, name=None, *rest, **more: compiled.append(str(name))
    )
    for target in TEMPLATES:
        assert render(builtin(target))
    assert compiled == []


def test_a_failure_ahead_of_time_is_reported_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees an error of the preparation; rendering itself raises it."""

    def fail(*_: object) -> None:
        raise OSError("no templates")

    monkeypatch.setattr(rendering, "load_templates", fail)
    rendering.prepare_rendering([profile_of("cpu", folder=builtin_target_dir("cpu"))], "kotlin")
