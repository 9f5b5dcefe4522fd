"""Join recordings of demonstrations into one LeRobotDataset.

    python scripts/mini/merge.py OUT DATASET [DATASET ...]

Masks beside the recordings are not joined: pretraining reads text alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")


def merge(out: Path, folders: list[Path]) -> None:
    """Join datasets with LeRobot's own function."""
    import datasets
    from lerobot.datasets.aggregate import aggregate_datasets

    datasets.disable_progress_bars()
    names = [f"pixelvla/{folder.name}" for folder in folders]
    aggregate_datasets(names, f"pixelvla/{out.name}", roots=folders, aggr_root=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("datasets", type=Path, nargs="+")
    args = parser.parse_args()
    merge(args.out, args.datasets)
    print(f"{args.out}: {len(args.datasets)} recordings joined")


if __name__ == "__main__":
    main()
