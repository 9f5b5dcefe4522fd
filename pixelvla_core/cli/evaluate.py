"""``pixelvla eval``: closed-loop success rates of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--env", help="The environment, e.g. tabletop.")
@click.option("--task", "tasks", multiple=True, help="Only these tasks; may be given again.")
@click.option("--split", "splits", multiple=True, help="Only these splits; may be given again.")
@click.option("--episodes", type=click.IntRange(min=1), help="Episodes per task and split.")
@click.option("--prompts", multiple=True, help="none, point, line, box or mask, given on the first observation.")
@click.option("--segmenter", help="From the prompt to the mask; oracle: the exact one.")
@click.option("--tracker", help="The mask through time.")
@click.option("--execute", type=click.IntRange(min=1), help="Steps of each chunk to execute before the next one.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that run episodes in parallel.")
@click.option("--step-timeout", type=float, help="Seconds after which a process that does not move is replaced.")
@click.option("--seed", type=int, help="The first episode's seed.")
@click.option("--slots", type=click.IntRange(min=1), help="Episodes that each worker runs in lockstep.")
@click.option("--device", help="Where the workers put the model: cpu or cuda.")
@click.option("--films", type=click.IntRange(min=0), help="Episodes of each kind whose pictures are kept.")
@click.option("--name", default="", help="What to call the model in tables; the run's name by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Where results.json goes; RUN/eval by default.")
def evaluate(run: Path, overrides: tuple[str, ...], out: Path | None, name: str, **options: Any) -> None:
    """Measure success in closed loop, with 95 % intervals, per task and split.

    RUN is a folder that `pixelvla train` or `pixelvla wrap` wrote. What is not given comes from its recipe.
    OVERRIDES are key=value for options of the model that do not change what its weights mean, such as
    backbone.options.sampler=fast; docs/evaluation.md says more.
    """
    from pixelvla_core.evaluate.run import evaluate as measure

    given: dict[str, Any] = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    measure(
        run,
        out=out,
        name=name,
        overrides=overrides,
        **{key: value for key, value in given.items() if value not in (None, [])},
    )
