"""The simulating stage: compiled files on the vendor's simulator, beside the CPU."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import Golden
from edgepack.child import Worker
from edgepack.compat.latency import multiply_accumulates
from edgepack.compilers import CompileRequest, compile_model
from edgepack.compilers.simulator import SimulatingCompiler, SimulatorInfo, simulating_compiler
from edgepack.digests import sha256
from edgepack.errors import EdgepackError
from edgepack.graph import Model, read_model
from edgepack.graph.extract import expose_tensors
from edgepack.pipeline.compile import CompiledModel
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.golden import golden_of
from edgepack.pipeline.jobs import COMPARE_OPS, RUN_SIMULATION
from edgepack.pipeline.measure import class_outputs, quality_from, reference_model, without_float_model
from edgepack.pipeline.option_validation import supports_simulation
from edgepack.pipeline.search.acceptance import Choice
from edgepack.pipeline.search.produce import QuantizedModel
from edgepack.pipeline.simulation.figures import Array, DeviatingOp, Distance, SimulatedRun, Simulation
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.variants import soc_model
from edgepack.runtime.postprocessing import scores
from edgepack.samples import SampleSet

#: Samples that are run however slow the simulator is: with fewer, an agreement in percent says nothing.
FEWEST_SAMPLES = 10
#: The simulator may take this many times the planned time; then no further sample is started. Measured times are up to
#: twice the estimated ones on an idle machine, and other work may slow the machine down as much.
PATIENCE = 4.0
#: Most ops that are named.
MOST_OPS = 3


@dataclass(frozen=True)
class ChipFile:
    """A file that was compiled for a chip.

    Attributes:
        chip: The SoC.
        name: Name of the file.
        data: The file.
    """

    chip: str
    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Simulated:
    """The simulations of a build's compiled files.

    Attributes:
        simulations: One for each chip.
        warnings: What the user should know.
    """

    simulations: tuple[Simulation, ...] = ()
    warnings: tuple[str, ...] = ()


def simulate(
    context: BuildContext,
    profile: TargetProfile,
    quantized: QuantizedModel,
    files: Sequence[ChipFile],
    golden: Golden,
    *,
    locate: bool = True,
) -> Simulated:
    """Run compiled files on the simulator.

    Args:
        context: The build.
        profile: The target; its compiler offers a simulator.
        quantized: The file that was compiled.
        files: What the compiler made of it, by chip.
        golden: Golden vectors of the file on the CPU.
        locate: Look for the ops that differ from the CPU.

    Raises:
        UnfitModelError: A file does not run on the simulator or on the CPU.
        ToolMissingError: The simulator is not installed.
    """
    assert profile.compiler is not None
    compiler = simulating_compiler(profile.compiler.id)
    info = compiler.find_simulator()
    task = _Task(context, profile, quantized, golden, compiler, info)
    simulations, warnings = [], []
    for file in files:
        simulation = task.run(file)
        if locate:
            simulation = task.located(simulation)
        simulations.append(simulation)
        run = simulation.run
        if run.samples < run.planned:
            warnings.append(
                f"simulated on {file.chip}: {run.samples} of the {run.planned} planned samples were run, because this "
                f"machine takes {run.seconds:.2f} s for one (--simulate-seconds raises the limit)"
            )
    return Simulated(tuple(simulations), tuple(warnings))


def simulate_compiled(
    context: BuildContext, profile: TargetProfile, choice: Choice, compiled: CompiledModel
) -> Simulated:
    """Run what was compiled of a build's chosen file; without a compiled file, the reason is a warning.

    Raises:
        EdgepackError: As `simulate`.
    """
    if not supports_simulation(profile):
        return Simulated()
    files = {file.filename: file.data for file in compiled.files}
    return _simulate(context, profile, choice.trial.quantized, compiled.chips, files, str(compiled.report["reason"]))


def simulate_file(context: BuildContext, profile: TargetProfile, quantized: QuantizedModel, scheme: str) -> Simulated:
    """Compile a file for the chips of the options, and run it; the ops that differ are not looked for.

    Raises:
        CompilerError: The compiler fails.
        EdgepackError: As `simulate`.
    """
    options = profile.compiler
    assert options is not None
    context.session.progress(f"compiling for {profile.id}")
    request = CompileRequest(
        quantized.tflite,
        file_stem(context.name),
        scheme,
        dict(options.options),
        context.options.target.socs,
        external_state=profile.external_state,
    )
    result = compile_model(simulating_compiler(options.id), request, context.options.compile_timeout)
    return _simulate(context, profile, quantized, result.chips, result.files, result.reason, locate=False)


def _simulate(
    context: BuildContext,
    profile: TargetProfile,
    quantized: QuantizedModel,
    chips: Mapping[str, str],
    files: Mapping[str, bytes],
    reason: str,
    *,
    locate: bool = True,
) -> Simulated:
    if not files:
        return Simulated(warnings=(f"not simulated, because nothing was compiled{f': {reason}' if reason else ''}",))
    model, shipped = read_model(quantized.tflite), context.shipped(quantized.tflite)
    golden, missing = golden_of(context.session, model, shipped, context.measured_on)
    if missing:
        return Simulated(warnings=tuple(f"not simulated: {text}" for text in missing))
    compiled = [ChipFile(chips[name], name, data) for name, data in files.items()]
    return simulate(context, profile, quantized, compiled, golden, locate=locate)


class _Task:
    """What the simulations of one file for several chips share."""

    def __init__(
        self,
        context: BuildContext,
        profile: TargetProfile,
        quantized: QuantizedModel,
        golden: Golden,
        compiler: SimulatingCompiler,
        info: SimulatorInfo,
    ) -> None:
        self._context, self._profile, self._quantized = context, profile, quantized
        self._compiler, self._info = compiler, info
        self._inputs = [list(case.inputs) for case in golden.cases]
        self._seconds = context.options.simulate_seconds
        samples, model = context.measured_on, read_model(quantized.tflite)
        self._model = model
        self._samples = None if samples is None else samples.limited(self._count(model, samples))

    def _count(self, model: Model, samples: SampleSet) -> int:
        """Return how many samples fit into the time by the simulator's estimate, which no clock decides."""
        estimate = self._info.seconds_per_run + self._info.seconds_per_mac * multiply_accumulates(model)
        return max(1, min(len(samples), max(FEWEST_SAMPLES, int(self._seconds / estimate))))

    def run(self, file: ChipFile) -> Simulation:
        """Run one compiled file."""
        session, options = self._context.session, self._context.options
        chip = soc_model(self._profile, file.chip)
        architecture = str(self._profile.socs.get(chip, {}).get("arch", ""))
        reference = reference_model(self._context, self._quantized)
        tail = scores(self._quantized.postprocessing)
        named = class_outputs(self._context, self._quantized.postprocessing)

        def progress(event: tuple[int, int]) -> None:
            session.progress(f"simulating {file.chip}: {event[0]} of {event[1]} samples")

        def compute() -> SimulatedRun:
            session.progress(f"simulating {file.chip}")
            call = RUN_SIMULATION.call(
                self._compiler.id,
                file.data,
                architecture,
                self._quantized.tflite,
                reference,
                self._samples,
                self._inputs,
                tail,
                named,
                PATIENCE * self._seconds,
            )
            # A process of its own: the vendor's libraries stay out of the one that measures everything else.
            with Worker(memory=options.model.memory_limit) as worker, session.workers.paused_clock():
                return worker.run(call, timeout=2 * PATIENCE * self._seconds + 300.0, on_event=progress)

        inputs = {
            "compiled": file.data,
            "model": self._quantized.tflite,
            "reference": reference,
            "samples": self._samples,
            "postprocessing": [step.to_json() for step in tail],
            "named": sorted(named),
            "golden": _digest(self._inputs),
            "simulator": [self._info.version, architecture],
            "seconds": self._seconds,
        }
        run = session.steps.memoize("simulate", inputs, _RUN, compute)
        if self._context.float_model.quantized:
            known = [None if one is None else without_float_model(one) for one in (run.quality, run.cpu)]
            run = replace(run, quality=known[0], cpu=known[1])
        return Simulation(file.chip, architecture, file.name, self._info.name, self._info.version, run)

    def located(self, simulation: Simulation) -> Simulation:
        """Return a simulation with the ops whose results differ from the CPU's beyond rounding."""
        if not self._inputs or not beyond_rounding(simulation.run.distance, self._model.main.outputs, self._model):
            return simulation
        session = self._context.session
        session.progress(f"looking for the ops that differ on {simulation.chip}")

        def compute() -> tuple[tuple[DeviatingOp, ...], str]:
            return self._locate(simulation)

        inputs = {
            "model": self._quantized.tflite,
            "golden": _digest(self._inputs),
            "simulator": [self._info.version, simulation.chip],
            "outputs": _digest(simulation.run.golden),
        }
        ops, sentence = session.steps.memoize("simulate-ops", inputs, _OPS, compute)
        return replace(simulation, deviating=ops[:MOST_OPS], located=sentence)

    def _locate(self, simulation: Simulation) -> tuple[tuple[DeviatingOp, ...], str]:
        graph = self._model.main
        inner = [
            tensor
            for op in graph.ops
            for tensor in op.outputs
            if tensor >= 0 and (graph.tensors[tensor].is_float or graph.tensors[tensor].quantization is not None)
        ]
        exposed = expose_tensors(self._quantized.tflite, inner)
        options = self._profile.compiler
        assert options is not None
        request = CompileRequest(
            exposed,
            "exposed",
            "",
            dict(options.options),
            (simulation.chip,),
            external_state=self._profile.external_state,
        )
        try:
            with self._context.session.workers.paused_clock():
                result = compile_model(self._compiler, request, self._context.options.compile_timeout)
                compiled = next(iter(result.files.values()), b"")
                if not compiled:
                    return (), f"the ops that differ are unknown: {result.reason}"
                with Worker(memory=self._context.options.model.memory_limit) as worker:
                    call = COMPARE_OPS.call(
                        self._compiler.id, compiled, simulation.architecture, exposed, self._inputs
                    )  # fmt: skip
                    results, ops = worker.run(call, timeout=2 * PATIENCE * self._seconds + 300.0)
        except EdgepackError as error:
            return (), f"the ops that differ are unknown: with inner tensors as outputs, {error.message}"
        same = all(
            np.array_equal(mine, shown)
            for case, outputs in zip(simulation.run.golden, results, strict=True)
            for mine, shown in zip(case, outputs, strict=False)
        )
        beyond = sorted(
            (op for op in ops if beyond_rounding(op.distance, graph.ops[op.index].outputs, self._model)),
            key=lambda op: (-op.distance.steps, -op.distance.relative, op.index),
        )
        return tuple(beyond), _sentence(len(beyond), len(ops), same=same)


def _sentence(beyond: int, differing: int, *, same: bool) -> str:
    if beyond:
        text = (
            f"{beyond} op{'s' if beyond > 1 else ''} of {differing} that differ from the CPU for the same inputs "
            f"differ{'' if beyond > 1 else 's'} by more than rounding"
        )
    elif differing:
        text = f"no single op differs from the CPU by more than rounding, which adds up over {differing} ops"
    else:
        text = "no single op differs from the CPU for the same inputs"
    return text if same else f"{text}; with the inner tensors as outputs the compiler made another program"


#: A result within this many scale steps of another, by bits of the type, is the same up to rounding: the exact value
#: may lie between two steps, and a kernel that multiplies in two stages rounds twice. In 16 bits the largest difference
#: is 8 steps, of SOFTMAX, in the int16x8 file of the example (four ops of 14 differ).
_ROUNDING_STEPS = {8: 1, 16: 16}
#: The same for floats, as a fraction of the largest value: what half precision costs a sum of a few thousand products.
#: Over the 60 ops of EfficientNet-Lite0 the largest is 0.005.
_ROUNDING_RELATIVE = 0.02


def beyond_rounding(distance: Distance, tensors: Sequence[int], model: Model) -> bool:
    """Return whether values differ by more than two correct kernels may.

    Args:
        distance: Their difference.
        tensors: Indices of the tensors in the main graph.
        model: The model.
    """
    wide = any(model.main.tensors[index].dtype == "INT16" for index in tensors if index >= 0)
    return distance.steps > _ROUNDING_STEPS[16 if wide else 8] or distance.relative > _ROUNDING_RELATIVE


def _digest(cases: Sequence[Sequence[Array]]) -> str:
    return sha256(b"".join(array.tobytes() for case in cases for array in case))


def _encode(run: SimulatedRun) -> dict[str, bytes]:
    arrays: dict[str, Any] = {
        f"{case:03d}_{at:03d}": array for case, results in enumerate(run.golden) for at, array in enumerate(results)
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    fields = {key: value for key, value in asdict(replace(run, golden=())).items() if key != "golden"}
    return {"run.json": to_json_bytes({**fields, "cases": len(run.golden)}), "golden.npz": stream.getvalue()}


def _decode(files: Mapping[str, bytes]) -> SimulatedRun:
    fields: dict[str, Any] = json.loads(files["run.json"])
    golden: list[list[Array]] = [[] for _ in range(fields.pop("cases"))]
    loaded = np.load(io.BytesIO(files["golden.npz"]))
    for name in sorted(loaded.files):
        golden[int(name.split("_")[0])].append(loaded[name])
    quality, cpu = (None if fields[name] is None else quality_from(fields[name]) for name in ("quality", "cpu"))
    return SimulatedRun(
        **{
            **fields,
            "quality": quality,
            "cpu": cpu,
            "distance": Distance(**fields["distance"]),
            "golden": tuple(tuple(case) for case in golden),
        }
    )


def _decode_ops(files: Mapping[str, bytes]) -> tuple[tuple[DeviatingOp, ...], str]:
    ops, sentence = json.loads(files["ops.json"])
    return tuple(DeviatingOp(**{**op, "distance": Distance(**op["distance"])}) for op in ops), str(sentence)


_RUN: Codec[SimulatedRun] = Codec(_encode, _decode)
_OPS: Codec[tuple[tuple[DeviatingOp, ...], str]] = Codec(
    lambda found: {"ops.json": to_json_bytes([[asdict(op) for op in found[0]], found[1]])}, _decode_ops
)
