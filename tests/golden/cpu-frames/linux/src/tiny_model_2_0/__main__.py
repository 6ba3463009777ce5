"""Command line: run the model on files, or replay its golden vectors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import INPUTS, OUTPUTS, TinyModel20
from ._image import read_image
from ._selftest import self_test


def main() -> int:
    """Run the command line and return the exit code: 0 success, 1 the self-test failed, 2 wrong usage or input."""
    parser = argparse.ArgumentParser(prog="python -m tiny_model_2_0", description="Run the model on files.")
    parser.add_argument(
        "files", nargs="*", type=Path, help="one .npy or image per input in order, or one .npz with all of them"
    )
    parser.add_argument("--self-test", action="store_true", help="replay the golden vectors and print the differences")
    parser.add_argument("--save", type=Path, metavar="OUT.npz", help="write the outputs")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="number of labels to print")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not options.self_test and not options.files:
        parser.error("pass files to run, or --self-test")
    try:
        model = TinyModel20(threads=options.threads)
    except (ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{model.status.model} on {model.status.accelerator}, {model.status.runtime}", file=sys.stderr)
    if options.self_test:
        return _self_test(model)
    try:
        result = model.run(*_read(options.files))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arrays = {tensor.field: getattr(result, tensor.field) for tensor in OUTPUTS}
    if options.save is not None:
        np.savez(options.save, **arrays)
    for tensor in OUTPUTS:
        if tensor.labels_file:
            for label, score in result.top_k(options.top, tensor.field):
                print(f"{tensor.field}\t{label}\t{score:.6g}")
            continue
        values = np.asarray(arrays[tensor.field])
        shown = " ".join(f"{value:.6g}" for value in values.reshape(-1)[:8])
        print(f"{tensor.field}\t{list(values.shape)}\t{shown}{' ...' if values.size > 8 else ''}")
    return 0


def _self_test(model: TinyModel20) -> int:
    kind, differences = self_test(model)
    for entry in differences:
        verdict = "ok" if entry.ok else "FAILED"
        field = OUTPUTS[entry.output].field
        print(f"case {entry.case}\t{field}\tlargest difference {entry.largest:g}\tallowed {entry.allowed:g}\t{verdict}")
    failed = sum(1 for entry in differences if not entry.ok)
    print(f"self-test: {len(differences) - failed} of {len(differences)} outputs agree (tolerance: {kind})")
    return 1 if failed else 0


def _read(files: list[Path]) -> list[NDArray[Any]]:
    if len(files) == 1 and files[0].suffix == ".npz":
        with np.load(files[0], allow_pickle=False) as archive:
            arrays = []
            for tensor in INPUTS:
                key = next((key for key in (tensor.name, tensor.field) if key in archive.files), None)
                if key is None:
                    raise ValueError(f"{files[0]}: expected an array '{tensor.field}', got {', '.join(archive.files)}")
                arrays.append(archive[key])
            return arrays
    if len(files) != len(INPUTS):
        raise ValueError(f"expected {len(INPUTS)} files ({', '.join(t.field for t in INPUTS)}), got {len(files)}")
    return [_values(file, position) for position, file in enumerate(files)]


def _values(file: Path, position: int) -> NDArray[Any]:
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False)
    return read_image(file, position, INPUTS[position].shape)


if __name__ == "__main__":
    sys.exit(main())
