"""A live figure of learning curves: 2,500 rows (ten strategies, ten seeds, 25 points) drawn anew after every run.

    python tests/benchmarks/bench_figures.py

CPU seconds, the best of five. Up to 0.1 s for an update a reader sees no delay.
"""

import time

import numpy as np
import pandas as pd

import lalib as la


def table() -> pd.DataFrame:
    """Accuracies that rise with the number of labels, with noise."""
    rng, labels = np.random.default_rng(0), np.arange(20, 520, 20)
    runs = [
        pd.DataFrame({"strategy": strategy, "seed": seed, "round": np.arange(25), "labels": labels})
        for strategy in ("random", *(f"strategy {i}" for i in range(1, 10)))
        for seed in range(10)
    ]
    frame = pd.concat(runs, ignore_index=True)
    return frame.assign(accuracy=1 - np.exp(-frame["labels"] / 200) + 0.01 * rng.normal(size=len(frame)))


def best(function) -> float:
    times = []
    for _ in range(5):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    runs = table()
    figure = la.figures.learning_curves(runs)
    print(f"curve_data             {best(lambda: la.results.curve_data(runs)):.3f} s")
    print(f"update_learning_curves {best(lambda: la.figures.update_learning_curves(figure, runs)):.3f} s")
