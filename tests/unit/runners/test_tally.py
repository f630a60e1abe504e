"""What is logged of a step by data set and media adds up to the step, and sound is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import tiny
from tests.unit.runners.runs import Samples, logged, trained
from video_llama.common.types import Replaced
from video_llama.runners.run_state import MEASURED, PARTS_EVERY
from video_llama.runners.tally import Tally


def mean(parts) -> float:
    tokens = sum(part["target_tokens"] for part in parts)
    return sum(part["loss"] * part["target_tokens"] for part in parts) / tokens


def test_the_parts_of_a_step_add_up_to_it(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1)
    for line in logged(tmp_path):
        assert line["by_dataset"].keys() == {"made_up"}
        assert line["by_media"].keys() <= {"text", "image", "video"}
        for parts in (line["by_dataset"].values(), line["by_media"].values()):
            assert mean(parts) == pytest.approx(line["loss"], rel=1e-6)
            assert sum(part["samples"] for part in parts) == line["samples"] == 4
            assert sum(part["target_tokens"] for part in parts) == line["target_tokens"]


def test_the_loss_of_a_kind_of_media_is_that_of_its_samples_alone(decoder, tmp_path):
    samples = Samples(3).samples  # an image, a clip, and text
    everything = Samples(3)
    model = tiny.model(decoder)
    alone = [model(tiny.batch(sample)) for sample in samples]
    trained(decoder, tmp_path, everything, model, batch_size_train=3, max_epoch=1, iters_per_epoch=1)
    (line,) = logged(tmp_path)
    for kind, out in zip(("image", "video", "text"), alone, strict=True):
        assert line["by_media"][kind]["loss"] == pytest.approx(out.loss_sum.item() / out.n_target_tokens, rel=1e-4)


def test_a_model_that_does_not_tell_the_losses_of_its_samples_is_trained_as_well(decoder, tmp_path):
    model = tiny.model(decoder)
    forward = model.forward
    model.forward = lambda batch: replace(forward(batch), sample_losses=None)
    model.training_flops = None
    trained(decoder, tmp_path, model=model, max_epoch=1)
    for line in logged(tmp_path):
        assert line["by_dataset"]["made_up"] == {"loss": None, "samples": 4, "target_tokens": 24, "replaced": 0}
        assert "flops" not in line


def telling(sample, *uses):
    """A sample whose media say what was done with the sound of their files."""
    return replace(sample, media=tuple(replace(m, sound=use) for m, use in zip(sample.media, uses, strict=True)))


def test_sound_is_counted_once_for_each_clip_and_sound_file_in_the_step_and_by_data_set():
    samples = [
        replace(telling(tiny.sample("a/1", tiny.sound(2), 4), None, "used"), dataset="a"),
        replace(telling(tiny.sample("a/2", tiny.sound(2)), "cut"), dataset="a"),
        replace(telling(tiny.sample("a/3", 4, 4), "absent", "ignored"), dataset="a"),
        replace(tiny.sample("b/c/1"), dataset="b/c"),
    ]
    bad = (Replaced("b/c/2", "no", "b/c/1"), Replaced("a/4", "no", "a/1", error="SoundDecodeError"))
    batch = tiny.batch(*samples[:3], replace(samples[3], replaced=bad))
    tally = Tally(["a", "b", "b/c"])
    found = tally.metrics(tally.counts([batch, batch]), tally.losses([batch, batch], [[1.0] * 4] * 2))
    of_sound = {"sound_used": 2, "sound_cut": 2, "sound_absent": 2, "sound_ignored": 2, "sound_failed": 2}
    assert {name: found[name] for name in of_sound} == of_sound
    one, other = found["by_dataset"]["a"], found["by_dataset"]["b/c"]
    assert {name: one.get(name) for name in of_sound} == of_sound
    assert (one["samples"], one["replaced"], other["samples"], other["replaced"]) == (6, 2, 2, 2)
    assert other.keys() == {"loss", "samples", "target_tokens", "replaced"}
    assert all(part.keys() == {"loss", "samples", "target_tokens"} for part in found["by_media"].values())


def test_replaced_records_of_no_data_set_are_counted_in_the_step():
    with_sound = [tiny.sample("a", tiny.sound(2), 4), tiny.sample("b", tiny.sound(2))]
    mute = tiny.sample("c", 4)
    broken = tuple(
        Replaced(name, "no", "d", error=error)
        for name, error in (("x", "SoundDecodeError"), ("y", "BadRecord"), ("z", "SoundDecodeError"))
    )
    batch = tiny.batch(*with_sound, mute, replace(tiny.sample("d"), replaced=broken))
    tally = Tally(["elsewhere"])
    found = tally.metrics(tally.counts([batch]), tally.losses([batch], [[1.0, 2.0, 3.0, 4.0]]))
    assert [found[f"sound_{what}"] for what in ("used", "absent", "failed")] == [0, 0, 2]
    assert (found["replaced"], found["by_dataset"]) == (3, {})
    assert {name: part["samples"] for name, part in found["by_media"].items()} == {
        "audio+video": 1, "audio": 1, "video": 1, "text": 1,
    }  # fmt: skip


def test_a_step_has_its_rates_and_every_so_many_steps_the_times_of_its_parts(decoder, tmp_path):
    trained(decoder, tmp_path, max_epoch=1, iters_per_epoch=PARTS_EVERY + 2)
    lines = logged(tmp_path)
    for line in lines:
        assert line["samples_per_second"] == pytest.approx(line["samples"] / line["seconds"], rel=0.1)
        assert line["flops_per_second"] == pytest.approx(line["flops"] / line["seconds"], rel=0.1)
        assert line["peak_memory_gb"] > 0.1
        assert "mfu" not in line, "nobody knows the peak of a CPU"
        assert line.keys() >= MEASURED - {"encoder_seconds", "decoder_seconds", "mfu"}
    timed = [line["step"] for line in lines if "decoder_seconds" in line]
    assert timed == [0, PARTS_EVERY]
    for step in timed:
        line = lines[step]
        assert 0 < line["encoder_seconds"] + line["decoder_seconds"] < line["seconds"]


def test_samples_seen_go_on_after_a_resume(decoder, tmp_path):
    trained(decoder, tmp_path / "one", max_epoch=1)
    path = str(tmp_path / "one" / "checkpoint_step000003.pth")
    trained(decoder, tmp_path / "two", resume_ckpt_path=path)
    assert [line["samples_seen"] for line in logged(tmp_path / "one")] == [4, 8, 12]
    assert [line["samples_seen"] for line in logged(tmp_path / "two")] == [16, 20, 24]
