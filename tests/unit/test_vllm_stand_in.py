"""The stand-in for vLLM answers what a real vLLM 0.32.0 answered to the same requests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.vllm_exchanges import EXCHANGES, TOY_DECODER, answers, bodies
from tests.vllm_stand_in import FIELDS, StandIn, serving

REAL = json.loads(EXCHANGES.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stand_in_answers() -> dict[str, Any]:
    with serving(StandIn(TOY_DECODER)) as stand_in:
        return dict(answers(stand_in.url))


def test_every_request_was_asked_of_a_real_one():
    assert {*bodies()} <= {*REAL}
    assert {name for body in bodies().values() for name in body} <= FIELDS


@pytest.mark.parametrize("name", REAL)
def test_the_stand_in_answers_as_the_real_one_did(name, stand_in_answers):
    assert close(stand_in_answers[name], REAL[name]), (stand_in_answers[name], REAL[name])


def close(found: Any, real: Any) -> bool:
    """Whether two answers are equal, but for the last digits of numbers."""
    if isinstance(real, dict) and isinstance(found, dict):
        return found.keys() == real.keys() and all(close(found[k], real[k]) for k in real)
    if isinstance(real, list) and isinstance(found, list):
        return len(found) == len(real) and all(map(close, found, real))
    if isinstance(real, float):
        return isinstance(found, float) and math.isclose(found, real, abs_tol=1e-3)
    return bool(found == real) and type(found) is type(real)
