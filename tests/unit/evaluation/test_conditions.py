"""Lists of conditions."""

from __future__ import annotations

import pytest

from video_llama.common.errors import ConfigError
from video_llama.evaluation.conditions import CONDITIONS, chosen_conditions


def test_full_comes_first_and_the_others_as_given():
    assert chosen_conditions("black, silent") == ("full", "black", "silent")
    assert chosen_conditions("no_media,full") == ("full", "no_media")
    assert set(chosen_conditions(",".join(CONDITIONS))) == CONDITIONS.keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("silent,blak", "no condition 'blak'. Did you mean black?"),
        ("silent,silent", "silent is named twice"),
        ("full", "name some besides full"),
        ("", "name some besides full"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(text, problem):
    with pytest.raises(ConfigError, match="--conditions") as error:
        chosen_conditions(text)
    assert problem in str(error.value)
