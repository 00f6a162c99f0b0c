"""Pages that are made as the site is built: the README, and references from the settings' schema and the commands.

Hooks of MkDocs (mkdocs.yml). Nothing of this is committed.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from plumbob.configs.load_run import PRESETS, preset_names
from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.setting_docs import DescribedSetting, described_settings
from plumbob.console.cli import COMMANDS
from plumbob.console.command import Command, CommandGroup

ROOT = Path(__file__).parents[2]


def on_config(config: Any) -> Any:
    """Fill in the lists of pages that follow from what there is."""
    for part in config.nav:
        for pages in part.values():
            for page in pages if isinstance(pages, list) else ():
                match next(iter(page.items())):
                    case (title, "reference/settings/"):
                        page[title] = [{group: f"reference/settings/{group}.md"} for group in settings_by_group()]
                    case (title, "decisions/"):
                        found = sorted((ROOT / "docs/decisions").glob("*.md"))
                        page[title] = [f"decisions/{path.name}" for path in found]
    how_to = next(part["How to"] for part in config.nav if "How to" in part)
    named = json.dumps(config.nav)
    how_to += [path.name for path in sorted((ROOT / "docs").glob("*.md")) if f'"{path.name}"' not in named]
    return config


def on_files(files: Files, config: Any) -> Files:
    pages = {
        "index.md": readme(),
        "reference/commands.md": commands_page(),
        "reference/presets.md": presets_page(),
        **{f"reference/settings/{group}.md": settings_page(group, own) for group, own in settings_by_group().items()},
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


# ------------------------------------------------------------------------------------------------------------ tutorial


def readme() -> str:
    """The README with links as from docs/."""
    return (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")


# ----------------------------------------------------------------------------------------------------------- reference


def settings_by_group() -> dict[str, list[DescribedSetting]]:
    """First part of the key -> its settings; those without a group are `run`."""
    found = defaultdict(list)
    for setting in described_settings():
        group, dot, _ = setting.key.partition(".")
        found[group if dot or setting.type == "group" else "run"].append(setting)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "run", item[0])))


def settings_page(group: str, settings: list[DescribedSetting]) -> str:
    title = "What every run has" if group == "run" else f"`{group}`"
    lines = [f"# {title}", "", "As `plumbob config` lists them; any is given as `a.b=c`, or in YAML.", ""]
    for setting in settings:
        lines += [f"### `{setting.key}` {{#{anchor(setting)}}}", "", *described(setting), ""]
    return "\n".join(lines)


def anchor(setting: DescribedSetting) -> str:
    """Unique on its page: the same key may stand there with another default, for other choices."""
    return re.sub(r"[^\w.-]", "-", "--".join([setting.key, *setting.only_with, *setting.runs]))


def described(setting: DescribedSetting) -> list[str]:
    default = "required" if setting.is_required else f"default `{json.dumps(setting.default, ensure_ascii=False)}`"
    facts = [setting.type] if setting.type == "group" and not setting.is_required else [setting.type, default]
    if setting.may_change:
        facts.append("may change when a run resumes")
    lines = [f"{'; '.join(facts)}.", ""]
    if setting.meaning:
        lines += [plain(setting.meaning), ""]
    lines += [f"- `{choice}`: {plain(meaning)}" if meaning else f"- `{choice}`" for choice, meaning in setting.choices]
    if setting.choices:
        lines.append("")
    if setting.only_with:
        lines += ["With " + " or ".join(f"`{choice}`" for choice in setting.only_with) + ".", ""]
    if set(setting.runs) != set(RUN_KINDS):
        lines += ["In runs of kind " + ", ".join(f"`{kind}`" for kind in setting.runs) + ".", ""]
    return lines


def plain(text: str) -> str:
    """Text of a docstring as Markdown that shows it as it is: no brackets become links, no stars emphasis."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\[\]*_<>])", r"\\\1", part) for part in parts)


def commands_page() -> str:
    lines = ["# Commands", "", "What `plumbob COMMAND --help` prints.", ""]
    for command in COMMANDS:
        if isinstance(command, CommandGroup):
            for below in command.commands:
                lines += command_lines(f"{command.NAME} {below.NAME}", below)
        else:
            lines += command_lines(command.NAME, command)
    return "\n".join(lines)


def command_lines(name: str, command: Command) -> list[str]:
    parser = argparse.ArgumentParser(
        prog=f"plumbob {name}",
        description=command.ABOUT,
        epilog=f"example: {command.EXAMPLE}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100),
    )
    command.add_options(parser)
    return [f"## `plumbob {name}`", "", "```", parser.format_help().rstrip(), "```", ""]


def presets_page() -> str:
    lines = ["# Presets", "", "`plumbob run NAME a.b=c` runs one; `configs/presets/` has them.", ""]
    for name in preset_names():
        content = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        lines += [f"## `{name}`", "", "```yaml", content, "```", ""]
    return "\n".join(lines)
