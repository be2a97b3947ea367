"""`shieldguard replay`: recorded streams again, as they were or under another policy."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from shieldguard import Channel, ConfigError, Policy, SentenceWindower, SizeWindower, Windower
from shieldguard.config import GuardConfig, load_judge, none_meant, wrong
from shieldguard.evaluation.asking import Asked, StoredVerdicts
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.replay import Under, again, under
from shieldguard.evaluation.timeline import output, timeline
from shieldguard.evaluation.virtual import Played
from shieldguard.recording import Recording, read
from shieldguard_adapters.choosing import json_object


def replay(
    file: Annotated[Path, typer.Argument(help="A recording, or a folder of them.")],
    stream: Annotated[
        str | None, typer.Option(help="Only this stream, by its id or how that begins.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file: its policy, windower and thresholds.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=VALUE of the policy, as release=lag or reasoning.potential=abort."),
    ] = None,
    harmful: Annotated[
        float | None, typer.Option(min=0, max=1, help="Another threshold on P(level = 1).")
    ] = None,
    potential: Annotated[
        float | None, typer.Option(min=0, max=1, help="Another threshold on P(level >= 0.5).")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="SHORTEST:LONGEST for sentences, or a size; needs --judge.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="A judge to ask, in place of recorded verdicts.")] = None,
    judge_options: Annotated[str, typer.Option(help="The judge's options, as JSON.")] = "{}",
    latency: Annotated[float, typer.Option(min=0, help="Seconds that this judge takes.")] = 0.0,
    text: Annotated[bool, typer.Option("--text", help="Print the text that left, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a stream.")] = False,
) -> None:
    """Play recorded streams again: windows, verdicts, what left, and where it stopped."""
    settings = None if config is None else GuardConfig.load(config)
    thresholds = _thresholds(settings, harmful, potential)
    windower = _windower(window) if window else settings.build_windower() if settings else None
    asked = None
    if judge is not None:
        made = load_judge(judge, **json_object(judge_options))
        asked = Asked(StoredVerdicts(made), latency=latency)
    for recording in _chosen(read(file), stream):
        other = Under(
            policy=_policy(settings.policy if settings else recording.policy, policy or []),
            windower=windower,
            borders=thresholds,
            ask=asked.with_borders(thresholds) if asked else None,
        )
        changed = other != Under(policy=recording.policy)
        was = again(recording) if recording.windower is not None else None
        played = under(recording, other) if changed or was is None else was
        _show(recording, played, was if changed else None, as_json=as_json, text=text)


def _chosen(recordings: Sequence[Recording], stream: str | None) -> list[Recording]:
    found = [one for one in recordings if stream is None or one.stream.startswith(stream)]
    if not found:
        known = ", ".join(one.stream for one in recordings[:5])
        raise ConfigError(
            f"--stream {stream!r} is none of the {len(recordings)} recorded streams ({known}, …)"
        )
    return found


def _policy(base: Policy, changes: Sequence[str]) -> Policy:
    fields = asdict(base)
    given: dict[str, Any] = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--policy {change!r} has no value; write FIELD=VALUE, as release=lag")
        name, dot, level = path.partition(".")
        if dot and isinstance(fields.get(name), dict):
            fields[name] = {**fields[name], level: _meant(value)}
        else:
            given[path] = _meant(value)
    try:
        return TypeAdapter(Policy).validate_python({**fields, **none_meant(given)})
    except ValidationError as error:
        raise ConfigError(f"--policy cannot be used: {wrong(error)}") from None


def _meant(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _thresholds(
    settings: GuardConfig | None, harmful: float | None, potential: float | None
) -> Borders | None:
    options = settings.judge_options if settings else {}
    harmful = options.get("harmful") if harmful is None else harmful
    potential = options.get("potential") if potential is None else potential
    if harmful is None and potential is None:
        return None
    return Borders(harmful=harmful, potential=potential, channels=frozenset({Channel.REASONING}))


def _windower(given: str) -> Windower:
    shortest, colon, longest = given.partition(":")
    try:
        if colon:
            return SentenceWindower(shortest=int(shortest), longest=int(longest))
        return SizeWindower(size=int(given))
    except ValueError as error:
        raise ConfigError(f"--window {given!r} is neither SHORTEST:LONGEST nor a size: {error}") from None


def _show(recording: Recording, played: Played, was: Played | None, *, as_json: bool, text: bool) -> None:
    moments = timeline(played)
    before = None if was is None else timeline(was)[-1]
    if as_json:
        plain: dict[str, Any] = {
            "stream": recording.stream,
            "recorded": recording.time,
            "timeline": [{"at": round(moment.at, 6), **moment.plain} for moment in moments],
        }
        if before is not None:
            plain["was"] = {"at": round(before.at, 6), **before.plain}
        if text:
            plain["output"] = output(played)
        print(json.dumps(plain))
        return
    how = "as it was" if before is None else "under another policy"
    print(f"stream {recording.stream}, recorded {recording.time}, {how}")
    for moment in moments:
        print(f"{moment.at:9.3f} s  {moment.says}")
    if before is not None:
        print(f"it was, at {before.at:.3f} s: {before.says}")
    if text:
        print(output(played))
    print()
