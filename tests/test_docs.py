"""The documentation against the code: links, commands and their options, Python, make targets, the README's tree."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from pixelvla_demo.plan import ANNOTATIONS, DEMONSTRATIONS, EXACT
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.prompting import mix_of

from pixelvla_core.cli.main import cli
from pixelvla_core.recipe import Recipe, compose, find_recipes, split_arguments, to_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = TEXTS[ROOT / "README.md"]


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, code) of every fenced block in one of the languages."""
    return [
        (where(page), code) for page, text in TEXTS.items() for lang, code in FENCE.findall(text) if lang in languages
    ]


def commands() -> list[tuple[str, str]]:
    """(page, line) of every command in a fenced block, its continuations joined and its comment taken off."""
    found = []
    for page, code in blocks("", "sh", "bash", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ").split("  #")[0].strip()
            if words.startswith("pixelvla ") and not re.search(r"\s{3,}", words):
                found.append((page, words))
    return found


def inline_commands() -> list[tuple[str, str]]:
    """(page, text) of every command named within a sentence."""
    named = re.compile(r"`(pixelvla [a-z][^`\n]*)`")
    return [(where(page), words) for page, text in TEXTS.items() for words in named.findall(FENCE.sub("", text))]


# --- links --------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get on the web."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page])):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{where(page)} links to {target}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{where(page)} links to {target}"


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", TEXTS[ROOT / "docs" / "README.md"]))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


# --- commands -----------------------------------------------------------------------------------------------------


def resolve(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The innermost command that words name, its context, and the words left for it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="pixelvla")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        if inner is None:
            break
        command, context, words = inner, click.Context(inner, parent=context, info_name=words[0]), words[1:]
    return command, context, words


def unknown_command(command: click.Command, rest: list[str]) -> bool:
    """Whether a group is followed by a word that is none of its commands."""
    return isinstance(command, click.Group) and bool(rest) and not rest[0].startswith("-")


def plain(words: str) -> list[str]:
    """The words of a command; ``[LAYER ...]`` and the like count as given once."""
    return shlex.split(words.replace("[", " ").replace("]", " ").replace("...", " "))[1:]


@pytest.mark.parametrize(("page", "words"), commands())
def test_every_command_parses(page: str, words: str) -> None:
    """With all its required arguments, options that exist, and values of the right kind."""
    command, context, rest = resolve(plain(words) if "key=" in words or " [" in words else shlex.split(words)[1:])
    assert not unknown_command(command, rest), f"{page}: {words}: there is no command {rest[0]!r}"
    try:
        command.make_context(command.name, list(rest), parent=context.parent)
    except click.exceptions.Exit:
        pass  # --help and --version
    except click.ClickException as error:
        pytest.fail(f"{page}: {words}: {error.format_message()}")


@pytest.mark.parametrize(("page", "words"), sorted(set(inline_commands())))
def test_every_command_named_in_a_sentence_exists(page: str, words: str) -> None:
    command, _, rest = resolve(plain(words))
    assert not unknown_command(command, rest), f"{page}: {words}: there is no command {rest[0]!r}"
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h", "--version"}
    unknown = {word.split("=")[0] for word in rest if word.startswith("-")} - known
    assert not unknown, f"{page}: {words} has no {unknown}"


@pytest.mark.parametrize(
    ("page", "words"), [(p, w) for p, w in commands() if re.search(r" (train|recipe show|wrap) ", w)]
)
def test_every_recipe_in_a_command_exists(page: str, words: str) -> None:
    names = {file.name for file in find_recipes()}
    command, context, rest = resolve(plain(words))
    given = command.make_context(command.name, rest, parent=context.parent).params
    layers = given.get("recipe") or given.get("names") or given.get("overrides") or ()
    for layer in layers:
        if "=" not in layer and not layer.isupper() and not layer.endswith(".yaml"):
            assert layer in names, f"{page}: there is no recipe {layer!r}"


def recipes_in_commands() -> list[tuple[str, str]]:
    """(page, words) of every command that trains or shows a recipe, with no place left for the reader to fill."""
    named = re.compile(r"^pixelvla (?:train|recipe show) (?!--|RECIPE)")
    return [(page, words) for page, words in commands() if named.match(words)]


def composed(page: str, words: str, folder: Path) -> Recipe:
    """What the recipe of a command comes to; one that a page writes out itself is taken from there."""
    command, context, rest = resolve(shlex.split(words)[1:])
    given = command.make_context(command.name, rest, parent=context.parent).params
    names, overrides = split_arguments([*(given.get("recipe") or ()), *(given.get("names") or ())])
    for name, code in re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", TEXTS[ROOT / page], re.DOTALL):
        (folder / name).write_text(code, encoding="utf-8")
    own = {name: str(folder / name) for name in names if (folder / name).is_file()}
    backbone = ["backbone.name=third_party", "backbone.weights=null"] if own else []
    return compose([own.get(name, name) for name in names], [*overrides, *backbone], allow_missing=True)


@pytest.mark.parametrize(("page", "words"), recipes_in_commands())
def test_the_data_of_every_recipe_in_a_command_can_be_what_it_asks_for(page: str, words: str, tmp_path: Path) -> None:
    """A command that trains gives all that only the user can give, and annotations where prompts are asked for."""
    if "runs/mine/recipe.yaml" in words:
        pytest.skip("a run's own recipe")
    recipe = composed(page, words, tmp_path)
    assert "train" not in words or "???" not in to_yaml(recipe), f"{page}: {words} leaves something to be given"
    parts = [recipe.data, *(recipe.data.options.get("parts") or {}).values()] if recipe.data else []
    for part in parts:
        name, options = (part["name"], part["options"]) if isinstance(part, dict) else (part.name, part.options)
        if name == "lerobot" and options["root"] != "???":
            mix_of(LeRobotConfig(**options))


def test_the_demonstrations_that_a_command_takes_from_the_demo_are_there() -> None:
    for page, words in commands():
        for name in re.findall(r"=out/demo/(\w+)", words):
            assert name in (DEMONSTRATIONS, ANNOTATIONS, EXACT), f"{page}: {words}: make demo writes no {name}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, text in TEXTS.items():
        for name in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
            assert name in targets, f"{where(page)} names make {name}"


def test_the_readme_names_the_commands_of_the_project() -> None:
    lines = [line for _, code in FENCE.findall(README) for line in code.splitlines()]
    assert {"make demo", "make test"} <= {*lines, *re.findall(r"`(make \w+)`", README)}
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# --- Python -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "code"), blocks("python", "py"))
def test_python_compiles(page: str, code: str) -> None:
    """A block of signatures counts with empty bodies."""
    bodies = re.sub(r"^( *(?:async )?def [^\n]*?):? *(#[^\n]*)?$(?!\n\1 )", r"\1: ...", code, flags=re.MULTILINE)
    for text in (code, bodies):
        try:
            compile(text, page, "exec")
        except SyntaxError as error:
            reason = error
        else:
            return
    pytest.fail(f"{page}: {reason}")


# --- the README ---------------------------------------------------------------------------------------------------


def folders() -> set[str]:
    """Every folder of the project down to the second level that holds files which are not ignored."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    parts = [Path(line).parts[:-1] for line in done.stdout.splitlines() if (ROOT / line).exists()]
    return {"/".join(folder[:depth]) + "/" for folder in parts for depth in (1, 2) if len(folder) >= depth}


def test_the_tree_in_the_readme_is_the_tree() -> None:
    section = README.split("## What is where", 1)[1]
    tree = dict(line.split(maxsplit=1) for line in FENCE.findall(section)[0][1].splitlines())
    assert set(tree) == folders()
    assert all(len(line) > 12 for line in tree.values())


def test_the_readme_has_no_loose_ends() -> None:
    assert not re.search(r"TODO|TBD|FIXME|XXX", README)
