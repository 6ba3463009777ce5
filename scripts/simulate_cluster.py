"""How long 10,000 cells take on a cluster, and what bounds them: a simulation of the scheduler's greedy order.

    scripts/simulate_cluster.py [--models 1250] [--cells 8] [--convert 10] [--round-trip 0.12] [--rate 78]

Each model is converted once, then its first cell is built, then the others, each by the first worker that is free. A
node also takes the round trips to the store for its entries, and the scheduler hands out at most `--rate` nodes a
second.
"""

import argparse
import heapq


def simulate(options: argparse.Namespace, workers: int) -> float:
    """Return the seconds until the last cell is built."""
    convert = options.convert + options.trips_convert * options.round_trip
    build = options.build + options.trips_build * options.round_trip
    free = [0.0] * workers
    ready: list[tuple[float, int, int]] = [(0.0, model, 0) for model in range(options.models)]
    handed = end = 0.0
    while ready:
        since, model, stage = heapq.heappop(ready)
        worker = heapq.heappop(free)
        handed = max(handed + 1 / options.rate, since, worker)
        done = handed + (convert if stage == 0 else build)
        heapq.heappush(free, done)
        end = max(end, done)
        # Conversion, the first cell, then the others side by side.
        for _ in range((1, options.cells - 1, 0)[stage]):
            heapq.heappush(ready, (done, model, stage + 1))
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1250)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--convert", type=float, default=10.0, help="seconds of a conversion")
    parser.add_argument("--build", type=float, default=4.0, help="seconds of a cell after it")
    parser.add_argument("--round-trip", type=float, default=0.12, help="seconds of one request to the store")
    parser.add_argument("--trips-convert", type=int, default=4)
    parser.add_argument("--trips-build", type=int, default=30)
    parser.add_argument("--rate", type=float, default=78.0, help="nodes that the scheduler hands out in a second")
    options = parser.parse_args()
    print("workers  minutes  efficiency")
    one = simulate(options, 1)
    for workers in (1, 10, 50, 100, 500, 1000, 2000):
        seconds = simulate(options, workers)
        print(f"{workers:7}  {seconds / 60:7.1f}  {one / seconds / workers:9.0%}")


if __name__ == "__main__":
    main()
