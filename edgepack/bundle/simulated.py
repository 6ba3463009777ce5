"""What a bundle says of a simulated accelerator, compared with its golden vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgepack.bundle.golden import Tolerance, compare
from edgepack.text import first_few

Array = npt.NDArray[Any]

#: The manifest has two digits of a relative difference.
_ROUNDED = 1.1


def simulated_faults(
    manifest: Mapping[str, Any],
    index: Mapping[str, Any],
    cases: Sequence[Mapping[str, Sequence[Array | None]]],
    read: Callable[[Mapping[str, Any]], Array | None],
) -> Iterator[str]:
    """Yield a sentence for each statement about a simulated accelerator that the golden vectors contradict.

    The simulator does not run here: its outputs are compared with the CPU's, from which they may differ by as much as
    the manifest says that they do.

    Args:
        manifest: The manifest, of a valid form.
        index: The index of the golden vectors, of a valid form.
        cases: The golden vectors.
        read: Returns an array of the index; None for one that is wrong, which it has reported.
    """
    entries = index.get("simulated", [])
    chips, named = ([entry["chip"] for entry in one] for one in (entries, manifest.get("simulation", [])))
    if chips != named:
        stated, found = (first_few(names) or "no chip" for names in (named, chips))
        yield f"simulated: the manifest has a simulation of {stated}, and there are outputs of {found}"[:400]
        return
    compiled = {entry["path"] for entry in manifest["model"]["files"] if entry["role"] == "compiled"}
    for entry in manifest.get("simulation", []):
        if f"model/{entry['file']}" not in compiled:
            yield f"simulation of {entry['chip']}: expected a compiled file of the bundle, got '{entry['file'][:80]}'"
    for entry, stated in zip(entries, manifest.get("simulation", []), strict=True):
        allowed = Tolerance(stated["difference"]["steps"], stated["difference"]["relative"] * _ROUNDED)
        if len(entry["cases"]) != len(cases):
            yield f"simulated {entry['chip']}: expected {len(cases)} cases, got {len(entry['cases'])}"
            continue
        for number, (case, expected) in enumerate(zip(entry["cases"], cases, strict=True)):
            arrays = [read(listed) for listed in case["outputs"]]
            if len(arrays) != len(expected["outputs"]):
                yield f"simulated {entry['chip']}, case {number}: expected {len(expected['outputs'])} outputs"
                continue
            for position, (golden, actual) in enumerate(zip(expected["outputs"], arrays, strict=True)):
                if golden is None or actual is None:
                    continue
                quantized = index["quantized_outputs"][position]
                difference = compare(
                    golden, actual, quantized=quantized, tolerance=allowed, case=number, output=position
                )  # fmt: skip
                # Results that name something, such as a class, may be others on an accelerator.
                if not difference.ok and (quantized or golden.dtype.kind == "f"):
                    yield (
                        f"simulated {entry['chip']}, case {number}: output {position} differs from the CPU's by "
                        f"{difference.largest:g}, and the manifest has at most {difference.allowed:g}"
                    )
