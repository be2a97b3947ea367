"""What commands are told about the judge, and where their reports go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shieldguard import ConfigError
from shieldguard.config import GuardConfig


def json_object(given: str, named: str = "--judge-options", be: str = "is") -> dict[str, Any]:
    """A JSON object from the command line. Raises `ConfigError` that begins with what it is named there."""
    try:
        found = json.loads(given)
    except ValueError as error:
        raise ConfigError(f"{named} {given!r} {be} no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{named} {given!r} must be a JSON object")
    return found


def chosen_judge(
    settings: GuardConfig, judge: str | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The judge of the settings with more options, or another."""
    if judge is None or judge == settings.judge:
        return settings.judge, {**settings.judge_options, **options}
    return judge, options


def write_reports(folder: Path, texts: Mapping[str, str]) -> str:
    """Write a report in each format, by its suffix; the line that says where."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            (folder / f"report.{suffix}").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write a report to {str(folder)!r}: {error}") from None
    return "reports: " + ", ".join(str(folder / f"report.{suffix}") for suffix in texts)
