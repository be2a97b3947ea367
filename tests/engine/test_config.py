"""Settings from a file and the environment: what goes first, what is refused, and the guard they make."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shieldguard import (
    Action,
    Answer,
    ConfigError,
    Guard,
    InstantJudge,
    Judge,
    Policy,
    Reasoning,
    Release,
    ReleasedEvent,
    RiskLevel,
    Rule,
    SentenceWindower,
    SizeWindower,
    SourceEvent,
    StreamReport,
    WindowJudged,
)
from shieldguard.config import GuardConfig, load_judge
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge

Written = Callable[[str], Path]

GUARD = """
judge = "shieldguard.testing:InstantScriptedJudge"
judge_options = { rule = { HARM = 1.0, DOUBT = 0.5 } }
windower = "size"
windower_options = { size = 8 }

[policy]
max_wait = 1.5
[policy.reasoning]
potential = "redact"
"""


@pytest.fixture(autouse=True)
def _only_the_tests_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SHIELDGUARD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A configuration file of this text."""

    def write(text: str) -> Path:
        file = tmp_path / "guard.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


# -- what goes first ---------------------------------------------------------------------------------


def test_with_nothing_set_the_guard_is_the_default_one() -> None:
    config = GuardConfig.load()
    assert (config.judge, config.windower, config.policy) == ("embedded", "sentence", Policy())
    guard = config.build()
    assert (guard.policy, guard.windower) == (Policy(), SentenceWindower())
    assert type(guard.judge).__name__ == "EmbeddedJudge"


def test_a_file_gives_the_settings_it_names_and_leaves_the_others(written: Written) -> None:
    config = GuardConfig.load(written(GUARD))
    assert config.policy == Policy(max_wait=1.5, reasoning=Rule(potential=Action.REDACT))
    assert config.windower_options == {"size": 8}


def test_the_proxys_table_is_left_to_it(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_SERVE__PORT", "1")
    file = written('[policy]\nrelease = "lag"\n[serve]\nport = 1\n[[serve.upstreams]]\nurl = "http://h"')
    assert GuardConfig.load(file).policy.release is Release.LAG


def test_a_file_may_be_named_by_a_string(written: Written) -> None:
    assert GuardConfig.load(str(written('windower = "size"'))).windower == "size"


def test_the_environment_goes_before_the_file_setting_by_setting(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIELDGUARD_WINDOWER_OPTIONS__SIZE", "9")
    monkeypatch.setenv("SHIELDGUARD_POLICY__MAX_WAIT", "4")
    monkeypatch.setenv("SHIELDGUARD_POLICY__REASONING__HARMFUL", "redact")
    config = GuardConfig.load(written(GUARD))
    assert config.windower_options == {"size": 9}
    assert config.policy.max_wait == 4
    assert config.policy.reasoning == Rule(potential=Action.REDACT, harmful=Action.REDACT)
    assert config.judge == "shieldguard.testing:InstantScriptedJudge"


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_the_environment_alone_will_do(monkeypatch: pytest.MonkeyPatch, case: Callable[[str], str]) -> None:
    monkeypatch.setenv(case("SHIELDGUARD_JUDGE"), "shieldguard.testing:ScriptedJudge")
    monkeypatch.setenv(case("SHIELDGUARD_JUDGE_OPTIONS__DELAY"), "0.5")
    monkeypatch.setenv(case("SHIELDGUARD_POLICY__RELEASE"), "lag")
    monkeypatch.setenv(case("SHIELDGUARD_POLICY__MAX_UNJUDGED"), "50")
    guard = GuardConfig.load().build()
    assert isinstance(guard.judge, ScriptedJudge)
    assert float(guard.judge.delay) == 0.5
    assert guard.policy == Policy(release=Release.LAG, max_unjudged=50)


def test_a_group_of_settings_may_be_json_where_text_cannot_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_POLICY", '{"answer": null, "max_wait": null}')
    assert GuardConfig.load().policy == Policy(answer=None, max_wait=None)


def test_loaded_settings_do_not_change() -> None:
    config: Any = GuardConfig.load()
    with pytest.raises(ValueError, match="frozen"):
        config.judge = "another"


# -- what is refused ---------------------------------------------------------------------------------

REFUSED = [
    ('model = "x"', r"model: .*'x'"),
    ("[policy]\nthreshold = 0.5", r"policy\.threshold: .*0\.5"),
    ('[policy.reasoning]\nharmless = "flag"', r"policy\.reasoning\.harmless: .*'flag'"),
    ('windower = "word"', r"windower: .*'sentence' or 'size'.*'word'"),
    ("judge = 3", r"judge: .*3"),
    ('windower_options = { size = "ten" }', r"windower_options\.size: .*'ten'"),
    ('[policy]\nrelease = "later"', r"policy\.release: .*'hold', 'lag' or 'shadow'.*'later'"),
    ('[policy.answer]\nsafe = "ignore"', r"policy\.answer\.safe: .*'ignore'"),
    ('[policy]\nmax_wait = "soon"', r"policy\.max_wait: .*'soon'"),
    ("[policy]\njudge_timeout = 0", r"policy: .*judge_timeout=0"),
    ("[policy]\nabort_hits = 3", r"policy: .*abort_hits=3 of abort_within=1"),
    ('[policy]\non_failure = "redact"', r"policy: .*on_failure='redact'; choose 'abort' or 'flag'"),
    ('[policy]\nreasoning = "abort"', r"policy\.reasoning: .*'abort'"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text for text, _ in REFUSED])
def test_a_setting_that_cannot_be_used_is_named_with_its_value(
    written: Written, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        GuardConfig.load(written(text))


def test_all_settings_that_cannot_be_used_are_named_at_once(written: Written) -> None:
    with pytest.raises(ConfigError, match=r"windower: .*; policy\.release: "):
        GuardConfig.load(written('windower = "word"\n[policy]\nrelease = "later"'))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SHIELDGUARD_WINDOWER", "word", r"windower: .*'word'"),
        ("SHIELDGUARD_POLICY__RELEASE", "", r"policy\.release: .*''"),
        ("SHIELDGUARD_POLICY__RELAESE", "lag", r"policy\.relaese: .*'lag'"),
        ("SHIELDGUARD_POLICY__JUDGE_TIMEOUT", "nan", r"judge_timeout=nan"),
        ("SHIELDGUARD_POLICY__ANSWER", "abort", r"policy\.answer.*'abort'"),
        (
            "SHIELDGUARD_POLICY_RELEASE",
            "lag",
            r"'SHIELDGUARD_POLICY_RELEASE' is no setting.*'SHIELDGUARD_POLICY__…'",
        ),
        ("SHIELDGUARD_WINDOWER_OPTIONS__SIZE", "1.5", r"windower_options\.size: .*'1\.5'"),
    ],
)
def test_so_is_one_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        GuardConfig.load()


def test_what_a_file_cannot_leave_out_is_none(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_POLICY__TOOL_CALL", "none")
    policy = GuardConfig.load(written('[policy]\nanswer = "none"\nmax_wait = "none"')).policy
    assert (policy.answer, policy.tool_call, policy.max_wait) == (None, None, None)


@pytest.mark.parametrize("name", ["SHIELDGUARD_POLICY", "SHIELDGUARD_JUDGE_OPTIONS"])
def test_json_that_is_none_is_refused_as_well(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "{not json")
    with pytest.raises(ConfigError, match=name.removeprefix("SHIELDGUARD_").lower()):
        GuardConfig.load()


@pytest.mark.parametrize("content", [b"judge = ", b"\xff\xfe", b"policy = 1\npolicy = 2"], ids=repr)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "guard.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*guard\.toml"):
        GuardConfig.load(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.toml"):
        GuardConfig.load(tmp_path / "none.toml")


# -- the windower ------------------------------------------------------------------------------------


def test_a_windower_is_made_with_its_options(written: Written) -> None:
    text = "windower_options = { shortest = 20, longest = 50 }"
    assert GuardConfig.load(written(text)).build().windower == SentenceWindower(shortest=20, longest=50)
    assert GuardConfig.load(written('windower = "size"')).build().windower == SizeWindower()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("size = 8", r"windower 'sentence' does not take the options \{'size': 8\}"),
        ("shortest = 0", "shortest=0"),
        ("shortest = 400", "shortest=400 and longest=640"),
    ],
)
def test_options_that_the_windower_does_not_take_are_refused(
    written: Written, options: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        GuardConfig.load(written(f"windower_options = {{ {options} }}")).build()


# -- the judge ---------------------------------------------------------------------------------------


def test_a_judge_of_ones_own_is_made_with_its_options() -> None:
    judge = load_judge("shieldguard.testing:ScriptedJudge", rule={"HARM": 1.0}, delay=0.5)
    assert judge == ScriptedJudge({"HARM": 1.0}, delay=0.5)


def test_an_option_of_the_judge_may_be_called_name(written: Written) -> None:
    text = 'judge = "shieldguard.testing:ScriptedJudge"\njudge_options = { name = "mine" }'
    assert GuardConfig.load(written(text)).build().judge == ScriptedJudge(name="mine")


def test_the_embedded_judge_goes_by_its_name() -> None:
    assert isinstance(load_judge("embedded"), InstantJudge)


CHOICE = "choose 'cascade', 'embedded', 'local', 'remote', 'llama_guard', .* or 'package.module:factory'"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", CHOICE),
        ("elsewhere", CHOICE),
        ("shieldguard.testing", CHOICE),
        ("shieldguard.nowhere:Judge", "cannot be loaded: No module named 'shieldguard.nowhere'"),
        ("shieldguard.testing:NoJudge", "cannot be loaded: .*no attribute 'NoJudge'"),
        ("shieldguard.testing:", "cannot be loaded"),
        ("shieldguard:Policy", r"made Policy\(.*, which has no `name` and `async judge\(window\)`"),
    ],
)
def test_a_judge_that_cannot_be_had_is_named(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"judge='{name}'.*{says}"):
        load_judge(name)


@pytest.mark.parametrize("name", [":Judge", ".testing:ScriptedJudge"])
def test_a_judge_without_a_whole_module_name_is_named_as_well(name: str) -> None:
    with pytest.raises(ConfigError, match=f"judge='{name}'"):
        load_judge(name)


def test_numbers_of_a_judge_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_JUDGE", "cascade")
    for name, value in {
        "THRESHOLD": "0.25",
        "SCREEN__JUDGE": "embedded",
        "SCREEN__HARMFUL": "0.9",
        "CONFIRM__JUDGE": "shieldguard.testing:ScriptedJudge",
        "CONFIRM__DELAY": "2",
        "CONFIRM__NAME": "slow",
        "URLS": '["http://one", "http://two"]',
        "API_KEY": "1e5",
    }.items():
        monkeypatch.setenv(f"SHIELDGUARD_JUDGE_OPTIONS__{name}", value)
    assert GuardConfig.load().judge_options == {
        "threshold": 0.25,
        "screen": {"judge": "embedded", "harmful": 0.9},
        "confirm": {
            "judge": "shieldguard.testing:ScriptedJudge",
            "delay": 2,
            "name": "slow",
        },
        "urls": ["http://one", "http://two"],
        "api_key": "1e5",
    }


def test_judges_of_a_cascade_are_tables_with_a_judge_in_them(written: Written) -> None:
    file = written(
        'judge = "cascade"\n'
        "[judge_options]\nthreshold = 0.3\n"
        'screen = { judge = "embedded", harmful = 0.9 }\n'
        "[judge_options.confirm]\n"
        'judge = "cascade"\n'
        'screen = { judge = "shieldguard.testing:ScriptedJudge", name = "quick" }\n'
        'confirm = { judge = "shieldguard.testing:ScriptedJudge", name = "slow" }\n'
    )
    assert GuardConfig.load(file).build().judge.name == "embedded, then quick, then slow"


def test_a_judge_in_a_table_is_loaded_as_carefully(written: Written) -> None:
    file = written('judge = "cascade"\n[judge_options]\nscreen = { judge = "wizard" }\n')
    with pytest.raises(ConfigError, match="judge='wizard'; choose"):
        GuardConfig.load(file).build()
    file = written('judge = "cascade"\n[judge_options]\nscreen = "embedded"\nconfirm = "embedded"\n')
    with pytest.raises(ConfigError, match="screen='embedded' is no judge"):
        GuardConfig.load(file).build()


def test_options_that_the_judge_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ScriptedJudge' does not take the options \{'model': 'x'\}"):
        load_judge("shieldguard.testing:ScriptedJudge", model="x")


def test_a_key_among_them_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="'api_key': '…'"):
        load_judge("shieldguard.testing:ScriptedJudge", api_key="sk-secret")


def test_a_module_that_the_judge_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judge_with_a_gap.py").write_text("import not_to_be_found\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="No module named 'not_to_be_found'"):
        load_judge("judge_with_a_gap:Judge")


# -- the guard ---------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.ends: list[int] = []
        self.reports: list[StreamReport] = []

    def window_judged(self, event: WindowJudged) -> None:
        self.ends.append(event.end)

    def stream_closed(self, report: StreamReport) -> None:
        self.reports.append(report)


def released(guard: Guard, *source: SourceEvent) -> tuple[list[ReleasedEvent], StreamReport]:
    with guard.stream_sync(source) as stream:
        return list(stream), stream.report


def test_the_guard_judges_with_what_was_set(written: Written) -> None:
    log = Log()
    guard = GuardConfig.load(written(GUARD)).build(observers=[log])
    events, report = released(guard, Reasoning("All calm. A HARM, and more."), Answer("Never."))
    assert log.ends == [8, 16]
    assert events[0] == Reasoning("All calm")
    assert report.aborted is not None
    assert report.aborted.cause == "risk"
    assert log.reports == [report]
    assert released(guard, Reasoning("All calm."), Answer("Yes."))[0][-1] == Answer("Yes.")


def test_two_guards_of_the_same_settings_share_no_judge(written: Written) -> None:
    config = GuardConfig.load(written(GUARD))
    one, other = config.build(), config.build()
    assert one.judge is not other.judge


def test_a_guard_from_json_in_the_environment_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_JUDGE", "shieldguard.testing:InstantScriptedJudge")
    monkeypatch.setenv("SHIELDGUARD_JUDGE_OPTIONS", json.dumps({"rule": {"HARM": 1.0}}))
    guard = GuardConfig.load().build()
    assert isinstance(guard.judge, Judge)
    assert isinstance(guard.judge, InstantScriptedJudge)
    events, report = released(guard, Reasoning("HARM"), Answer("Never."))
    assert [type(event).__name__ for event in events] == ["Aborted"]
    assert report.level is RiskLevel.HARMFUL
