"""How far does the order of a table's rows depend on the protocol that scores them?

    sslbench evaluate FOLDER --all-protocols      # writes cases-PROTOCOL.csv beside each run's own records
    python benchmarks/protocols/ranks.py FOLDER [--against native]

Reads the records of every run below a folder, averages them over cases and classes, then over seeds, and prints for
each metric and protocol: the rows in their order, Kendall's tau of that order with the one of `--against`, and the mean
over rows of the value as a multiple of the value there. Rows are methods with their losses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from scipy.stats import kendalltau

LARGER_IS_BETTER = ("dsc", "jaccard", "nsd")


def read(folder: Path) -> pd.Series:
    """Mean values by protocol, metric and row."""
    frames = []
    for path in sorted(folder.rglob("cases-*.csv")):
        row = path.parent.parent.name.partition("~")[0]
        protocol = path.stem.removeprefix("cases-")
        frames.append(pd.read_csv(path).assign(file=protocol, row=row, seed=path.parent.name))
    if not frames:
        raise SystemExit(f"{folder}: no cases-*.csv below it; sslbench evaluate {folder} --all-protocols makes them")
    means = pd.concat(frames).groupby(["metric", "file", "row", "seed"])["value"].mean()
    return means.groupby(["metric", "file", "row"]).mean()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", default="native")
    args = parser.parse_args()
    values = read(args.folder)
    for metric, found in values.groupby(level="metric"):
        table = found.droplevel("metric").unstack("row")
        if args.against not in table.index:
            continue
        reference = table.loc[args.against]
        for protocol, scores in table.iterrows():
            order = scores.sort_values(ascending=not str(metric).startswith(LARGER_IS_BETTER))
            tau = kendalltau(scores, reference).statistic
            times = (scores / reference).mean()
            print(f"{metric:8} {protocol:20} tau {tau:5.2f}  x {times:4.2f}  {' > '.join(map(str, order.index))}")


if __name__ == "__main__":
    main()
