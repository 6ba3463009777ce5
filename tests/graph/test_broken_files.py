"""A broken file gives a clear error or a result, never a crash, a hang or an allocation larger than the file."""

import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from broken import answers
from builders import Net, classifier

from edgepack.errors import ModelFileError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.tflite"))
#: Inputs that caused a failure when the fuzzer found them.
FOUND = sorted((Path(__file__).parents[1] / "corpus" / "found").iterdir())
ROOT = Path(__file__).parents[2]
#: Values that replace lengths and offsets.
_HARD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000000, 0x80000004)


#: Seconds of processor time after which reading and checking a file counts as hanging; no test here needs 20.
HANGING = 300.0


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail a test in which reading a file does not end, instead of waiting."""

    def give_up(*_: object) -> None:
        raise AssertionError("reading or checking a file does not end")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, HANGING)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_sound(path: Path) -> None:
    """Every file in the fuzzer's corpus is a model that can be checked."""
    assert answers(path.read_bytes())


@pytest.mark.parametrize("path", CORPUS[:4], ids=lambda path: path.stem)
def test_truncated_files(path: Path) -> None:
    """A truncated file is an error or, where only unused bytes are missing, a result."""
    data = path.read_bytes()
    cuts = sorted({*range(64), *(len(data) * i // 40 for i in range(40))})
    assert not any(answers(data[:cut]) for cut in cuts if cut < len(data) // 2)


@pytest.mark.parametrize("size", [8, 9, 16, 64, 1000, 100_000])
def test_random_bytes_behind_the_identifier(size: int) -> None:
    """Random bytes with the identifier of a .tflite are reported as a corrupt file."""
    noise = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    with pytest.raises(ModelFileError, match="corrupt"):
        read_model(noise[:4] + b"TFL3" + noise[8:])


@pytest.mark.slow
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_flipped_bytes_and_wild_numbers(path: Path) -> None:
    """300 seeded mutations of each file: flipped bits, and lengths and offsets with arbitrary values."""
    source, chance = path.read_bytes(), random.Random(path.stem)
    for _ in range(300):
        data = bytearray(source)
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            position = chance.randrange(8, len(data))
            if chance.random() < 0.5:
                data[position] ^= 1 << chance.randrange(8)
            else:
                position &= ~3
                value = chance.choice((*_HARD, len(data), 2 * len(data), chance.randrange(1 << 32)))
                data[position : position + 4] = value.to_bytes(4, "little")
        answers(bytes(data))


def test_every_word_of_a_small_file_made_huge() -> None:
    """Each 32-bit word in turn claims 2 GB, points 2 GB ahead or back to the start."""
    source = min((path.read_bytes() for path in CORPUS), key=len)
    for position in range(8, len(source) - 3, 4):
        for value in (0x7FFFFFFF, 0x80000000, 0):
            answers(source[:position] + value.to_bytes(4, "little") + source[position + 4 :])


@pytest.mark.parametrize("shape", [(1 << 15, 1 << 15, 2), (1 << 30,), (1 << 31 - 1, 4)], ids=str)
def test_a_constant_larger_than_its_buffer(shape: tuple[int, ...]) -> None:
    """Weights that claim gigabytes in a small file are refused before memory is allocated for them."""
    file = unpack(classifier())
    weights = next(tensor for tensor in file.subgraphs[0].tensors if tensor.name == b"fc/kernel")
    weights.shape = np.array(shape, np.int32)
    with pytest.raises(ModelFileError, match=r"needs \d+ bytes, its buffer has 640"):
        read_model(pack(file))


def test_an_activation_of_terabytes_is_only_a_number() -> None:
    """Activations are not in the file: their size is compared with limits and no memory is allocated."""
    file = unpack(classifier())
    for tensor in file.subgraphs[0].tensors:
        if tensor.buffer == 0:
            tensor.shape = np.array((1, 1 << 20, 1 << 20, 16), np.int32)
    assert answers(pack(file))


def _circle() -> bytes:
    net = Net()
    a, b = net.tensor("a", (1, 4)), net.tensor("b", (1, 4))
    net.op("RELU", [a], [b])
    net.op("RELU", [b], [a])
    return net.build([a], [b])


def _self_fed() -> bytes:
    net = Net()
    a = net.tensor("a", (1, 4))
    net.op("RESHAPE", [a, net.constant("s", [1, 4], "INT32")], [a])
    return net.build([a], [a])


def _no_ops() -> bytes:
    net = Net()
    a = net.tensor("a", (1, 4))
    return net.build([a], [a])


def _no_tensors() -> bytes:
    return Net().build([], [])


def _written_twice() -> bytes:
    net = Net()
    a, b = net.tensor("a", (1, 4)), net.tensor("b", (1, 4))
    for _ in range(3):
        net.op("LEAKY_RELU", [a], [b], alpha=0.1)
    return net.build([a], [b])


def _nothing_in_or_out() -> bytes:
    net = Net()
    for name in ("CONV_2D", "LEAKY_RELU", "RESHAPE", "TILE", "MEAN", "SPLIT_V", "SOFTMAX", "QUANTIZE", "MUL", "UNPACK"):
        net.op(name, [], [])
        net.op(name, [-1, -1, -1], [-1])
    return net.build([net.tensor("a", (1, 4))], [])


@pytest.mark.parametrize("make", [_circle, _self_fed, _no_ops, _no_tensors, _written_twice, _nothing_in_or_out])
def test_odd_graphs(make: Callable[[], bytes]) -> None:
    """Cycles, ops that read their own output, empty graphs and ops without tensors give a result."""
    assert answers(make())


@pytest.mark.slow
def test_ten_thousand_ops() -> None:
    """A model of 10,000 ops is read, previewed and checked for each target."""
    net = Net()
    x = net.tensor("x", (1, 4, 4, 4))
    for number in range(10_000):
        y = net.tensor(f"t{number}", (1, 4, 4, 4))
        net.op(("RELU", "LOGISTIC", "ARG_MAX", "TANH")[number % 4], [x], [y])
        x = y
    data = net.build([0], [x])
    from broken import cases

    from edgepack.compat import check
    from edgepack.quantize.preview import preview

    model = read_model(data)
    for profile, variant, rule in cases():
        assert check(preview(model, rule), profile, variant=variant).summary["total"] >= 10_000


@pytest.mark.slow
def test_memory_stays_below_a_gigabyte() -> None:
    """A process limited to 1 GB reads the fuzzer's findings, and the corpus with arbitrary numbers in it."""
    script = (
        "import resource, sys; sys.path[:0] = sys.argv[1:3]; import test_broken_files as t; import broken; "
        "broken.answers(t.CORPUS[0].read_bytes()); "
        "assert t.FOUND; [broken.answers(p.read_bytes()) for p in t.FOUND]; "
        "[broken.answers(p.read_bytes()[:k] + b'\\xff\\xff\\xff\\x7f' + p.read_bytes()[k + 4:]) "
        "for p in t.CORPUS[:3] for k in range(8, 600, 4)]; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    tests = ROOT / "tests"
    process = subprocess.run(
        [sys.executable, "-c", script, str(tests), str(tests / "graph")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)),
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert int(process.stdout.split()[-1]) < 1 << 20


@pytest.mark.slow
def test_the_fuzz_target_runs() -> None:
    """scripts/fuzz finds its corpus and its target, and ends without an error after a few seconds."""
    pytest.importorskip("atheris", reason="atheris is not installed: scripts/fuzz cannot run")
    process = subprocess.run([sys.executable, ROOT / "scripts" / "fuzz", "5"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "number_of_executed_units" in process.stderr
