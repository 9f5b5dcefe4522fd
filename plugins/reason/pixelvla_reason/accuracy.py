"""How often the reasoner ``grammar`` names exactly the labelled object.

    python -m pixelvla_reason.accuracy LIST.jsonl [--wrong SPLIT]

Each line of the list is ``{"instruction": ..., "target": ..., "source": ..., "split": ...}``; capitals do not count.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pixelvla_reason.grammar import Grammar


@dataclass
class Score:
    """Right answers of all, and what was answered wrongly: instruction, label, answer."""

    right: int = 0
    all: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)


def score(path: Path) -> dict[tuple[str, str], Score]:
    """Score a list by split and source."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    answers = Grammar().targets([row["instruction"] for row in rows])
    scores: dict[tuple[str, str], Score] = defaultdict(Score)
    for row, answer in zip(rows, answers, strict=True):
        for source in (row.get("source", ""), "all"):
            into = scores[row.get("split", ""), source]
            into.all += 1
            if answer.text == row["target"].lower():
                into.right += 1
            else:
                into.wrong.append((row["instruction"], row["target"], answer.text))
    return dict(scores)


def main() -> None:
    """Print the table, and what is wrong in one split if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--wrong", metavar="SPLIT")
    arguments = parser.parse_args()
    for (split, source), of in sorted(score(arguments.list).items()):
        print(f"{split:12} {source:10} {of.right:4}/{of.all:<4} {of.right / of.all:7.1%}")
        if split == arguments.wrong and source == "all":
            print(*(f"  {text!r}: {label!r}, not {answer!r}" for text, label, answer in of.wrong), sep="\n")


if __name__ == "__main__":
    main()
