"""Which installed distributions plugins come in, and what these require."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, entry_points, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pixelvla_core.plugins import GROUP


def with_plugins() -> list[str]:
    """Return the distributions that bring a plugin, sorted."""
    return sorted({point.dist.name for point in entry_points(group=GROUP) if point.dist is not None})


def declared(name: str, extra: str = "") -> list[Requirement]:
    """Return what a distribution requires here, or what one of its extras adds to that; nothing if it is missing."""
    try:
        stated = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    wanted = [requirement for requirement in stated if _applies(requirement, extra)]
    added = [each for each in wanted if not extra or not _applies(each, "")]
    for requirement in added:
        requirement.marker = None  # it holds here; an installer that was given it would pass over the package
    return added


def libraries(packages: Iterable[str], *, in_turn: bool = True) -> dict[str, str]:
    """Versions of the distributions that plugins' packages come in, and of what they require.

    They decode and resize the images, tokenise and compute. Those that are not installed are left out.

    Args:
        packages: top-level packages, such as "pixelvla_openvla".
        in_turn: also of what those require, and so on.
    """
    plugins = {point.module.partition(".")[0]: point.dist for point in entry_points(group=GROUP)}
    first = {(dist.name, "") for dist in map(plugins.get, packages) if dist is not None}
    found: dict[str, str] = {}
    todo, done = set(first), set()
    while todo:
        name, extra = one = todo.pop()
        done.add(one)
        try:
            found[canonicalize_name(name)] = distribution(name).version
        except PackageNotFoundError:
            continue
        if in_turn or one in first:
            todo |= {(each.name, wanted) for each in declared(name, extra) for wanted in ("", *each.extras)} - done
    return dict(sorted(found.items()))


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
