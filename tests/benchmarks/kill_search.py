"""Kill a search with signal 9 at random moments, resume it each time, and compare it with an undisturbed one.

    python -m tests.benchmarks.kill_search [--kills 30] [--seed 0] [--ending .db|.journal]

Searches of 60 evaluations are killed one after another until there were so many kills. After each search every
evaluation must be there exactly once, and all rows equal to those of an undisturbed search.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.nas.search.sharing import check_like_undisturbed, kill_at_random, logged

NUM_EVALUATIONS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ending", default=".db")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    num_killed = num_searches = 0
    while num_killed < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            study, log = Path(folder) / f"study{options.ending}", Path(folder) / "log"
            killed = kill_at_random(study, log, num_kills=options.kills - num_killed, num=NUM_EVALUATIONS, rng=rng)
            check_like_undisturbed(study, NUM_EVALUATIONS)
            repeated = sum(count - 1 for count in Counter(genotype for _, genotype in logged(log)).values())
        num_killed, num_searches = num_killed + killed, num_searches + 1
        print(
            f"search {num_searches}: killed {killed} times, {NUM_EVALUATIONS} rows, each once and as undisturbed; ",
            end="",
        )
        print(f"{repeated} evaluations that ended were not yet written and were done again", flush=True)
    print(f"{num_killed} kills, {num_searches} searches: nothing lost, nothing doubled")


if __name__ == "__main__":
    main()
