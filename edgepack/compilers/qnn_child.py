"""The program that `edgepack.compilers.qnn` runs: compiles model.tflite in the current folder for the given SoCs.

Writes report.json: SoC -> {"file", "stats"} or {"error"}. Paths are relative to the folder.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(socs: list[str]) -> int:
    """Compile for each SoC and write the report; return 0 even when the compiler fails."""
    from ai_edge_litert.aot.aot_compile import aot_compile
    from ai_edge_litert.aot.vendors.qualcomm.target import SocModel, Target

    report: dict[str, dict[str, Any]] = {}
    for soc in socs:
        # One SoC at a time, so that an unexpected failure of one does not affect the others.
        folder = Path("out") / soc
        try:
            result = aot_compile("model.tflite", output_dir=folder, target=[Target(SocModel(soc))])
        except Exception as error:
            report[soc] = {"error": f"{type(error).__name__}: {error}"}
            continue
        report[soc] = _outcome(result, folder)
    Path("report.json").write_text(json.dumps(report))
    return 0


def _outcome(result: Any, folder: Path) -> dict[str, Any]:
    if not result.models_with_backend:
        return {"error": "; ".join(text for _, text in result.failed_backends) or "no output and no error message"}
    _, model = result.models_with_backend[0]
    file = folder / "compiled.tflite"
    model.save(file, export_only=True)
    stats = getattr(model.partition_stats, "subgraph_stats", None) or []
    return {
        "file": str(file),
        "stats": [
            {"offloaded": s.num_ops_offloaded, "total": s.num_total_ops, "partitions": s.num_partitions_offloaded}
            for s in stats
        ],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
