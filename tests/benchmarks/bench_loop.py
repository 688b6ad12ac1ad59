"""What selection, training, evaluation and the rest take of compare, for ten strategies on fashion-mnist-mini's codes.

    python tests/benchmarks/bench_loop.py [--seeds 5] [--rounds 3] [--step 20] [--only margin badge]

Seconds are those of the processor in one thread, of all seeds together. Selection holds all that a strategy asks for,
such as the probabilities of the pool or the ensemble of bald; the rest is the start, the run files and the table.
"""

import argparse
import contextlib
import tempfile
import time
from unittest.mock import patch

import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.experiments import comparison, loop

NAMES = ["random", "least-confidence", "margin", "entropy", "core-set", "typiclust", "badge", "probcover", "maxherding"]
PARTS = {"selection": (loop, "run_strategy"), "training": (loop, "train_together"), "test": (comparison, "evaluate")}


def timed(function, spent):
    """The same function; the seconds of each call go to the list `spent`."""

    def measured(*arguments, **options):
        started = time.process_time()
        result = function(*arguments, **options)
        spent.append(time.process_time() - started)
        return result

    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seeds", 5), ("rounds", 3), ("step", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", default=[*NAMES, "bald"])
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    images, test = la.load("fashion-mnist-mini"), la.load("fashion-mnist-mini", "test")
    settings = {"encoder": comparison._codes("pca", images, test)[:2], "device": "cpu", "progress": False}
    print(f"{'':18}{'seconds':>9}" + "".join(f"{part:>12}" for part in (*PARTS, "the rest")))
    for name in given.pop("only"):
        spent = {part: [] for part in (*PARTS, "all")}
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as out, threadpool_limits(1):
            for part, (module, function) in PARTS.items():
                stack.enter_context(patch.object(module, function, timed(getattr(module, function), spent[part])))
            timed(la.compare, spent["all"])(images, test, strategies=[name], out=out, **settings, **given)
        *parts, whole = (sum(seconds) for seconds in spent.values())
        shares = [part / whole for part in (*parts, whole - sum(parts))]
        print(f"{name:18}{whole:9.2f}" + "".join(f"{share:12.1%}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
