"""The ``pixelvla`` command: which commands there are, and how errors end it."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from pixelvla_core.errors import PixelVLAError, UserError, suggest
from pixelvla_core.plugins import PluginManager

COMMANDS = {
    "wrap": "pixelvla_core.cli.wrap:wrap",
    "train": "pixelvla_core.cli.train:train",
    "annotate": "pixelvla_core.cli.annotate:annotate",
    "annotations": "pixelvla_core.cli.annotations:annotations_group",
    "eval": "pixelvla_core.cli.evaluate:evaluate",
    "plugins": "pixelvla_core.cli.plugins:plugins",
    "recipe": "pixelvla_core.cli.recipe:recipe",
    "doctor": "pixelvla_core.cli.doctor:doctor",
}
"""Core's commands; each is imported when it is called or listed."""

DEFECT = 1
USER_ERROR = 2
INTERRUPTED = 130
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
"""What the system answers where a path is read-only, or a file where a folder is wanted."""


class Commands(click.Group):
    """Core's commands, then those of plugins, which load only when a command is not core's or all are listed."""

    manager: PluginManager | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._plugins()
        return [*COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        self._plugins()
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise UserError(self._unknown(ctx, args[0]))
        return super().resolve_command(ctx, args)

    def _plugins(self) -> PluginManager:
        if self.manager is None:
            self.manager = PluginManager.load()
            self.manager.add_commands(self, reserved=COMMANDS)
        return self.manager

    def _unknown(self, ctx: click.Context, name: str) -> str:
        known = self.list_commands(ctx)
        text = f"There is no command {name!r}.{suggest(name, known)} Known: {', '.join(known)}."
        broken = self._plugins().broken
        return text + (f" Not loaded: {'; '.join(map(str, broken))}." if broken else "")


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pixelvla")
def cli() -> None:
    """Pixel-level awareness for the vision-language-action model you already have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 when all went well, 2 and one paragraph on stderr for the user's mistakes, 130 after Ctrl-C. An unexpected error
    keeps its traceback, with status 1: it is a defect, and the traceback is what its report needs.
    """
    try:
        status = cli.main(args=arguments, prog_name="pixelvla", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _fail(str(error))
    except PixelVLAError as error:  # such as a worker's crash, whose own traceback it quotes
        _fail(str(error))
        return DEFECT
    except click.ClickException as error:
        error.show()
        return USER_ERROR
    except (click.Abort, KeyboardInterrupt) as error:
        if not getattr(error.__cause__ or error, "told", False):  # click makes an Abort of it
            print("Stopped by Ctrl-C.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if (message := _explained(error)) is None:
            raise
        return _fail(message)


def _explained(error: OSError) -> str | None:
    """Words for what the system refuses and the user can change; None for all else, which is a defect."""
    from pixelvla_core.files import FULL

    if error.errno in FULL:
        return (
            f"The disk is full: {error}. Free some space, then run the command again; `pixelvla train` "
            f"goes on from its last checkpoint with --resume."
        )
    if error.errno in REFUSED and error.filename is not None:
        return (
            f"{error.filename}: {os.strerror(error.errno)}. The command needs to read or write there. Give another "
            "path (for caches, in PIXELVLA_CACHE), or change its permissions."
        )
    return None


def _fail(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return USER_ERROR
