"""Every scenario of a reference is read."""

from __future__ import annotations

from tests.parity.conftest import Reference

READ = (
    "video_T",
    "audio_T",
    "ibvision_",
    "caption_vision",
    "caption_audio",
    "multi_vision",
    "multi_audio",
    "chat_",
    "probe",
)


def test_every_scenario_is_of_a_known_kind(reference: Reference) -> None:
    names = {name.split("/")[0] for name in reference.goldens} | reference.info["scenarios"].keys()
    assert sorted(name for name in names if not name.startswith(READ)) == []
