"""No scenario of a reference goes unread."""

from __future__ import annotations

from tests.parity.conftest import Reference

READ = ("video_T", "caption_vision", "multi_vision", "chat_", "probe")
OF_AUDIO = ("audio_T", "ibvision_", "caption_audio", "multi_audio")
"""Not compared yet: there is no audio branch to compare with."""


def test_every_scenario_is_of_a_known_kind(reference: Reference) -> None:
    names = {name.split("/")[0] for name in reference.goldens} | reference.info["scenarios"].keys()
    assert sorted(name for name in names if not name.startswith(READ + OF_AUDIO)) == []
