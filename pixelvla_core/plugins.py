"""Finding plugins and selecting parts.

pluggy's own ``load_setuptools_entrypoints`` skips entry points that share a name and lets one broken plugin stop the
program, so entry points are iterated here: a plugin that cannot be imported, misspells a hook or returns something
else than what the hook promises is kept aside with the reason, and everything else goes on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from pixelvla_core import hookspecs
from pixelvla_core.component import KINDS, Component, Weights
from pixelvla_core.errors import PluginError, suggest

if TYPE_CHECKING:
    import click

GROUP = "pixelvla"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that loaded: its entry point's name, the distribution it came in, and its hooks by name."""

    name: str
    distribution: str
    version: str
    hooks: dict[str, Callable[..., Any]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class BrokenPlugin:
    """A plugin that was kept aside, and why."""

    name: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A part in the registry with where it came from."""

    kind: str
    component: Component
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.component.name!r}"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Base weights in the registry with where they came from."""

    weights: Weights
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"name {self.weights.name!r} for base weights of {self.weights.backbone!r}"


class Registry:
    """Parts by (kind, name), and base weights by (backbone, name).

    It holds every claim, so that a name claimed twice is an error only for who uses it.
    """

    def __init__(
        self, entries: Iterable[Entry] = (), broken: Iterable[BrokenPlugin] = (), shipped: Iterable[Shipped] = ()
    ) -> None:
        self.broken = list(broken)
        self.shipped = list(shipped)
        self._claims: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            self._claims.setdefault((entry.kind, entry.component.name), []).append(entry)

    def __iter__(self) -> Iterator[Entry]:
        for claims in self._claims.values():
            yield from claims

    def names(self, kind: str) -> list[str]:
        """Return the sorted names of the parts of one kind."""
        _check_kind(kind)
        return sorted(name for claimed, name in self._claims if claimed == kind)

    def conflicts(self) -> list[Sequence[Entry | Shipped]]:
        """Return the groups of parts, and of base weights, that claim one name."""
        pairs = dict.fromkeys((item.weights.backbone, item.weights.name) for item in self.shipped)
        groups: list[Sequence[Entry | Shipped]] = [*self._claims.values(), *(self._shipped(*pair) for pair in pairs)]
        return [claims for claims in groups if len(claims) > 1]

    def entry(self, kind: str, name: str) -> Entry:
        """Return the one part of this kind and name.

        Raises:
            PluginError: no plugin offers it (with the nearest name and the plugins that failed), or more than one does.
        """
        _check_kind(kind)
        claims = self._claims.get((kind, name), [])
        if not claims:
            raise PluginError(self._unknown(kind, name))
        if len(claims) > 1:
            raise PluginError(describe_conflict(claims))
        return claims[0]

    def get(self, kind: str, name: str) -> Component:
        """Return the component of this kind and name; errors as in :meth:`entry`."""
        return self.entry(kind, name).component

    def weights_names(self, backbone: str) -> list[str]:
        """Return the sorted names of the base weights that plugins ship for a backbone."""
        return sorted({item.weights.name for item in self.shipped if item.weights.backbone == backbone})

    def weights(self, backbone: str, name: str) -> Weights:
        """Return the base weights that a plugin ships for a backbone under a name.

        Raises:
            PluginError: no plugin ships them (with the nearest name), more than one does, or their folder is missing.
        """
        claims = self._shipped(backbone, name)
        if not claims:
            raise PluginError(self._unknown_weights(backbone, name))
        if len(claims) > 1:
            raise PluginError(describe_conflict(claims))
        weights, distribution = claims[0].weights, claims[0].distribution
        if not weights.folder.is_dir():
            raise PluginError(
                f"{distribution} ships the weights {name!r} of {backbone!r} in {weights.folder}, which is not there. "
                f"Install {distribution} again, or give the folder of a checkpoint."
            )
        return weights

    def locate(self, backbone: str, weights: str | None) -> str | None:
        """Return what an adapter shall load: a path or hub id as it is, and for a shipped name its folder.

        What exists in the working directory, and whatever has a slash, is no shipped name.

        Raises:
            PluginError: as in :meth:`weights`.
        """
        return str(self.weights(backbone, str(weights)).folder) if _is_name(weights) else weights

    def shipped_contract(self, backbone: str, weights: str | None) -> Mapping[str, Any]:
        """What a plugin says of the actions of the weights it ships under a name; nothing of other weights.

        Raises:
            PluginError: as in :meth:`weights`.
        """
        return self.weights(backbone, str(weights)).contract if _is_name(weights) else {}

    def _shipped(self, backbone: str, name: str) -> list[Shipped]:
        return [item for item in self.shipped if (item.weights.backbone, item.weights.name) == (backbone, name)]

    def _unknown(self, kind: str, name: str) -> str:
        known = self.names(kind)
        label = kind.replace("_", " ")
        text = f"There is no {label} {name!r}.{suggest(name, known)} Known: {', '.join(known) or 'none'}."
        return (
            f"{text}{self._not_loaded()} Install the distribution that offers it; `pixelvla plugins` lists all parts."
        )

    def _unknown_weights(self, backbone: str, name: str) -> str:
        known = self.weights_names(backbone)
        return (
            f"The weights {name!r} are no folder, no hub id (OWNER/NAME), and no weights that a plugin ships for "
            f"{backbone!r}.{suggest(name, known)} Known: {', '.join(known) or 'none'}.{self._not_loaded()} Give the "
            "folder of a checkpoint, or install the distribution that ships them."
        )

    def _not_loaded(self) -> str:
        return f" Not loaded: {'; '.join(map(str, self.broken))}." if self.broken else ""


class PluginManager:
    """The plugins of one program, or of one test: an object, never a global.

    Args:
        plugins: entry points, or objects (modules, instances) that carry ``@hookimpl`` functions.
    """

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self.plugins: list[Plugin] = []
        self.broken: list[BrokenPlugin] = []
        self._entries: list[Entry] = []
        self._shipped: list[Shipped] = []
        self._recipe_dirs: list[Path] = []
        for plugin in plugins:
            self._add(plugin)
        self.registry = Registry(self._entries, self.broken, self._shipped)

    @classmethod
    def load(cls) -> PluginManager:
        """Return a manager with every installed plugin: the entry points of group ``pixelvla``."""
        found: list[EntryPoint] = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
        return cls(found)

    def recipe_dirs(self) -> list[Path]:
        """Return the folders of recipe layers that plugins ship."""
        return list(self._recipe_dirs)

    def add_commands(self, cli: click.Group, reserved: Collection[str] = ()) -> None:
        """Add every plugin's commands to a click group.

        A plugin that raises, or that takes a command name which is reserved or taken, is kept aside like any other.
        """
        import click

        for plugin in [plugin for plugin in self.plugins if "pixelvla_commands" in plugin.hooks]:
            own = click.Group()
            try:
                plugin.hooks["pixelvla_commands"](own)
                if taken := sorted(set(own.commands) & {*reserved, *cli.commands}):
                    raise PluginError(f"its command {taken[0]!r} is already there")
            except Exception as error:
                self._set_aside(plugin.name, plugin.distribution, plugin.version, error)
            else:
                cli.commands.update(own.commands)

    def _add(self, source: object) -> None:
        name, distribution, version = _origin(source)
        try:
            loaded = source.load() if isinstance(source, EntryPoint) else source
            plugin = Plugin(name=name, distribution=distribution, version=version, hooks=_hooks(loaded))
            entries = [entry for kind in KINDS for entry in _entries(plugin, kind)]
            weights = _call(plugin, "pixelvla_weights", Weights)
            dirs = _call(plugin, "pixelvla_recipe_dirs", Path)
        except (Exception, SystemExit) as error:
            self._set_aside(name, distribution, version, error)
            return
        self.plugins.append(plugin)
        self._entries += entries
        self._shipped += [Shipped(weights=item, distribution=distribution, version=version) for item in weights]
        self._recipe_dirs += dirs

    def _set_aside(self, name: str, distribution: str, version: str, error: BaseException) -> None:
        reason = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        self.broken.append(BrokenPlugin(name=name, distribution=distribution, version=version, reason=reason))


def describe_conflict(claims: Sequence[Entry | Shipped]) -> str:
    """Return the paragraph that names every distribution that claims one name."""
    owners = " and ".join(f"{claim.distribution} {claim.version}".rstrip() for claim in claims)
    return f"The {claims[0]} is claimed by {owners}. Uninstall one of them, or ask its authors for another name."


def _is_name(weights: str | None) -> bool:
    return weights is not None and "/" not in weights and not Path(weights).exists()


def _origin(source: object) -> tuple[str, str, str]:
    if isinstance(source, EntryPoint):
        dist = source.dist
        return source.name, dist.name if dist else "unknown distribution", dist.version if dist else ""
    name = getattr(source, "__name__", type(source).__name__)
    return name, name, ""


def _hooks(plugin: object) -> dict[str, Callable[..., Any]]:
    """Return the marked hooks of a plugin after pluggy has checked their names and arguments."""
    _check_unmarked(plugin)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    hooks = {}
    for caller in manager.get_hookcallers(plugin) or []:
        if not caller.has_spec():
            raise PluginError(f"it implements {caller.name!r}, which is no hook.{suggest(caller.name, _spec_names())}")
        hooks[caller.name] = caller.get_hookimpls()[0].function
    return hooks


def _check_unmarked(plugin: object) -> None:
    """Refuse a function that is named like a hook but not marked: pluggy would pass over it without a word."""
    for name, value in inspect.getmembers(plugin, inspect.isroutine):
        if name in _spec_names() and not hasattr(value, f"{GROUP}_impl"):
            raise PluginError(f"its function {name} lacks the @hookimpl mark of pixelvla_core.hookspecs")


def _spec_names() -> list[str]:
    return [*KINDS.values(), "pixelvla_weights", "pixelvla_recipe_dirs", "pixelvla_commands"]


def _call(plugin: Plugin, hook: str, item_type: type) -> list[Any]:
    """Call one collecting hook of one plugin and check that it returns a list of the promised type."""
    function = plugin.hooks.get(hook)
    if function is None:
        return []
    found = function()
    if not isinstance(found, list) or not all(isinstance(item, item_type) for item in found):
        raise PluginError(f"{hook} returned {found!r}; expected a list of {item_type.__name__}")
    return found


def _entries(plugin: Plugin, kind: str) -> list[Entry]:
    components = _call(plugin, KINDS[kind], Component)
    return [
        Entry(kind=kind, component=component, distribution=plugin.distribution, version=plugin.version)
        for component in components
    ]


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise PluginError(f"There is no kind of part {kind!r}.{suggest(kind, KINDS)} Known: {', '.join(KINDS)}.")
