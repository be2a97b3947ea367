"""What is fuzzed holds for the seeds, and for what hypothesis makes of them in a short time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.checks import SECRET, Target, check, check_framing, check_policies
from tests.fuzz.shapes import reshaped
from tests.fuzz.targets import TARGETS, seeds_of

each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
SPLICES = st.tuples(
    st.integers(0, 5000),
    st.integers(0, 12),
    st.binary(max_size=6)
    | st.sampled_from([SECRET.encode(), b"\n\n", b"\r", b'"', b"{", b"}", b"[", b"null", b"1"]),
)


@each_target
def test_the_seeds_hold(target: Target) -> None:
    for data in seeds_of(target):
        check(target, data)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.slow] if "responses" in one.name else [])
        for one in TARGETS
    ],
)
def test_json_of_any_shape_is_read_or_refused(target: Target) -> None:
    for stream in reshaped(target.seeds()):
        check_policies(target, stream)


@each_target
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_what_is_made_of_the_seeds_holds(target: Target, data: st.DataObject) -> None:
    made = data.draw(st.sampled_from(seeds_of(target)))
    for at, length, new in data.draw(st.lists(SPLICES, max_size=4)):
        at %= len(made) + 1
        made = made[:at] + new + made[at + length :]
    check(target, made)
    check_framing(made)
