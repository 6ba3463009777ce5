"""The verification of a bundle: what its own files show, and what the installed target profile and samples show."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepack._version import __version__
from edgepack.bundle import verify as bundle_verify
from edgepack.bundle.golden import machine_name, runtime_name
from edgepack.bundle.signers import Verifier
from edgepack.bundle.verify_result import Problem, VerifyResult
from edgepack.child import Worker
from edgepack.choices import Resize
from edgepack.errors import BundleError, EdgepackError
from edgepack.graph import Model, read_model
from edgepack.graph.metadata import normalization_fault
from edgepack.pipeline.measure import measure_quality
from edgepack.pipeline.options import ModelOptions, Progress, TargetOptions, silent
from edgepack.pipeline.placement import check_placement
from edgepack.pipeline.session import Session
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import get_target
from edgepack.quantize.select import scheme_of
from edgepack.samples import Preprocess, SampleSet, SampleSource, load_samples
from edgepack.samples.specs import input_specs
from edgepack.schemes import SCHEMES
from edgepack.tasks import TaskSpec, from_json

_MANIFEST = "manifest.json"
_FIX = "do not rely on the manifest: rebuild the bundle, or ask for it where it was built"
#: Schemes whose quantizer leaves small constants in float: such a file may contain float constants only.
_WEIGHTS_ONLY = {"float16", "dynamic-range"}
#: The manifest rounds percentages to three digits.
_ROUNDING = 0.0005
#: Share of the samples, in percentage points, by which another machine's kernels may change the accuracy.
_OTHER_MACHINE = 1.0


def verify(
    path: Path | str,
    *,
    signer: Verifier | None = None,
    evaluation: SampleSource = "",
    worker: Worker | None = None,
    timeout: float = 300.0,
    progress: Progress = silent,
) -> VerifyResult:
    """Verify a bundle: its files, and every statement of its manifest that can be computed again here.

    Args:
        path: The bundle's folder.
        signer: Whose signature the bundle must have; None accepts unsigned bundles and checks no signature.
        evaluation: The samples on which the build measured, with labels; the accuracy is measured again.
        worker: Child process to run the model in; None starts one for this call.
        timeout: Time limit of the golden vectors, in seconds.
        progress: Called with a sentence about each step that takes time.

    Raises:
        EdgepackError: The folder is no bundle, a key or the samples cannot be read.
    """
    path = Path(path)
    result = bundle_verify.verify(path, signer=signer, worker=worker, timeout=timeout)
    # The following steps read the files that the steps before have compared with the manifest.
    if not result.ok or not result.manifest:
        return result
    check = _Recheck(path, result.manifest)
    check.scheme()
    check.target()
    if evaluation:
        check.quality(evaluation, progress)
    elif result.manifest["quality"] is not None:
        check.notes.append("quality was not measured again: give the samples of the build with --eval")
    return replace(result, problems=(*result.problems, *check.problems), notes=(*result.notes, *check.notes))


def mismatch(bundle: Path, result: VerifyResult) -> BundleError | None:
    """Return the error of a bundle that is not what its manifest says, None for a valid one."""
    if result.ok:
        return None
    count = len(result.problems)
    return BundleError(
        f"'{bundle}' does not match its manifest: {count} problem{'' if count == 1 else 's'}",
        hint=result.problems[0].fix,
    )


class _Recheck:
    """Statements of one valid manifest about its host model, computed again."""

    def __init__(self, root: Path, manifest: Mapping[str, Any]) -> None:
        self.manifest = manifest
        self.data = (root / manifest["model"]["host"]).read_bytes()
        self.model: Model = read_model(self.data)
        self.root = root
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def _problem(self, what: str) -> None:
        self.problems.append(Problem(_MANIFEST, what, _FIX))

    def scheme(self) -> None:
        """Compare the scheme with the types in the file."""
        claimed, actual = self.manifest["scheme"]["id"], scheme_of(self.model)
        if claimed not in SCHEMES:
            self._problem(f"scheme.id: expected one of {', '.join(SCHEMES)}, got '{claimed[:40]}'")
            return
        same = claimed == actual or (claimed == "int8-qat" and actual == "int8")
        if not same and not (claimed in _WEIGHTS_ONLY and actual == "float32"):
            self._problem(f"scheme.id: the manifest has {claimed}, the model file is {actual}")

    def target(self) -> None:
        """Compare the placement with a check by the installed profile, where it is the one of the build."""
        target = self.manifest["target"]
        try:
            profile = get_target(target["id"])
        except EdgepackError:
            self.notes.append(f"the placement was not checked again: target '{target['id'][:40]}' is not installed")
            return
        if profile.sha256 != target["profile_sha256"]:
            self.notes.append(
                f"the placement was not checked again: the build used another profile of {profile.id} than the "
                "installed one"
            )
            return
        if target["title"] != profile.title:
            self._problem(f"target.title: the manifest has '{target['title'][:80]}', the profile '{profile.title}'")
        if self.manifest["placement"] is not None and "variant" in target:
            self._placement(profile, target)

    def _placement(self, profile: TargetProfile, target: Mapping[str, Any]) -> None:
        options = TargetOptions(
            variant=target["variant"] or "",
            socs=(target["soc"],) if target["soc"] else (),
            runtime_version=target["runtime_version"],
        )
        try:
            actual = check_placement(self.model, profile, options).summary
        except EdgepackError as error:
            self._problem(f"target: {error.message}")
            return
        claimed = self.manifest["placement"]
        for key, value in actual.items():
            if claimed.get(key) == value:
                continue
            text = f"placement.{key}: the manifest has {claimed.get(key)}, the check {value}"
            if self.manifest["edgepack"] == __version__:
                self._problem(text)
            else:
                self.notes.append(f"{text}; the bundle was built by edgepack {self.manifest['edgepack'][:40]}")

    def quality(self, evaluation: SampleSource, progress: Progress) -> None:
        """Measure the accuracy of the file on the samples, and compare it with the manifest."""
        claimed = self.manifest["quality"]
        rules = [entry["preprocessing"] for entry in self.manifest["inputs"] if entry["preprocessing"]]
        classes = next((entry["labels"] for entry in self.manifest["outputs"] if entry["labels"]), ())
        preprocess, resize = _pixel_rule(rules[0]) if rules else (None, Resize.STRETCH)
        samples = load_samples(
            evaluation,
            input_specs(self.data),
            preprocess=preprocess,
            classes=classes,
            resize=resize,
        )
        with Session(ModelOptions(), progress) as session:
            actual = measure_quality(session, self.data, self.data, samples, task=self._task(samples))
        if claimed is None:
            accuracy = "no accuracy" if actual.accuracy is None else f"an accuracy of {actual.accuracy.value:.3f} %"
            self.notes.append(f"the manifest has no quality; the samples give {accuracy}")
            return
        if claimed.get("samples") != actual.samples:
            self._problem(
                f"quality.samples: the manifest has {claimed.get('samples')}, the source {actual.samples}: "
                "expected the samples on which the build measured"
            )
            return
        known = {"top1": claimed.get("top1"), "task.value": (claimed.get("task") or {}).get("value")}
        measured = {"top1": actual.top1, "task.value": None if actual.task is None else actual.task.value}
        for key, value in measured.items():
            self._compare(f"quality.{key}", known[key], value, actual.samples)
        self.notes.append("the other figures of quality compare with the original model, which a bundle does not have")

    def _compare(self, name: str, claimed: float | None, actual: float | None, samples: int) -> None:
        """Compare a percentage in the manifest with the one that was measured, None where there is none."""
        if actual is None:
            if claimed is not None:
                self.notes.append(f"{name} was not measured again: the samples have no labels for the outputs")
        elif claimed is None:
            self.notes.append(f"the manifest has no accuracy; the samples give {actual:.3f} %")
        elif abs(claimed - actual) > self._allowed():
            self._problem(f"{name}: the manifest has {claimed:.3f} %, the samples give {actual:.3f} %")
        else:
            self.notes.append(f"accuracy on {samples} samples: {actual:.3f} %, as in the manifest")

    def _task(self, samples: SampleSet) -> tuple[TaskSpec, tuple[str, ...]] | None:
        """Return what the outputs mean, where the samples have a truth to compare with."""
        document = self.manifest.get("task")
        if document is None or samples.truth is None:
            return None
        return from_json(document), tuple(document["labels"])

    def _allowed(self) -> float:
        index = _golden_index(self.root, self.manifest)
        same = (index["machine"], index["runtime"]) == (machine_name(), runtime_name())
        return _ROUNDING if same else _OTHER_MACHINE


def _pixel_rule(rule: Mapping[str, Any]) -> tuple[Preprocess, Resize]:
    """Return how images become values, from an entry of the manifest.

    Raises:
        BundleError: The entry says something else.
    """
    try:
        lists = [rule[key] if isinstance(rule[key], list) else [rule[key]] for key in ("mean", "std")]
        mean, std = (tuple(float(value) for value in values) for values in lists)
        if fault := normalization_fault(mean, std):
            raise ValueError(fault)
        return Preprocess(mean, std), Resize(rule.get("resize", Resize.STRETCH))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"manifest.json: inputs: preprocessing: expected the mean and std of pixels, and resize: {error}", hint=_FIX
        ) from error


def _golden_index(root: Path, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    index: Mapping[str, Any] = json.loads((root / manifest["golden"]["index"]).read_bytes())
    return index
