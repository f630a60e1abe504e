"""``video-llama cache-features``: training from its store has the losses of training without, and nothing foreign is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.integration.conftest import ROOT, losses
from video_llama.cli.main import main as video_llama
from video_llama.processors import media
from video_llama.processors.feature_shards import Manifest, shard_names
from video_llama.processors.stored_features import FeaturesFile
from video_llama.runners import feature_caching

WEIGHTS = ROOT / "video_llama/toy/weights"
SHORT = ["run.max_epoch=2", "run.iters_per_epoch=3", "run.warmup_steps=0", "run.batch_size_train=8"]
SHORT += ["model.qformer.dropout=0.1"]
CROPS = [
    "datasets.webvid.vis_processor.train={name: alpro_video_train, n_frms: 4, image_size: 64}",
    "datasets.cc_sbu_align.vis_processor.train={name: blip2_image_train, image_size: 64}",
    "datasets.webvid.views=2",
    "datasets.cc_sbu_align.views=2",
]
STAGE_1, SOUND = "toy/stage1_pretrain", "toy/audiobranch_finetune"
NO_TOWERS = [f"model.{key}=nowhere" for key in ("vit_ckpt", "q_former_model")]


def cache(config: str, folder: Path, *options: str) -> int:
    """Fill a store with one reading process."""
    return video_llama(
        ["cache-features", "--cfg-path", config, "--output", str(folder), "--workers", "1", "--options", *options]
    )


def keys(folder: Path) -> dict[str, list[int]]:
    """The frames under each key of a store."""
    found: dict[str, list[int]] = {}
    for name in shard_names(folder):
        file = FeaturesFile(folder / name)
        for key in file.keys():  # noqa: SIM118
            found.setdefault(key, []).extend(file.get(key).about.get("frames", []))
    return {key: sorted(frames) for key, frames in found.items()}


@pytest.fixture(scope="module")
def store(world, tmp_path_factory) -> Path:
    """The features of stage 1's files, uncropped."""
    folder = tmp_path_factory.mktemp("features") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert cache(STAGE_1, folder, f"paths.world={world}", *SHORT) == 0
    return folder


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    return Path(shutil.copytree(store, tmp_path / "own"))


def test_cached_and_uncached_losses_of_fixed_views_are_equal_and_a_run_may_change_between_them(
    world, tmp_path, train, command
):
    common = [f"paths.world={world}", *SHORT, *CROPS]
    store = tmp_path / "store"
    done = command("cache-features", "--cfg-path", STAGE_1, "--output", store, "--options", *common)
    assert done.code == 0, done.err
    assert f"model: {{features: {store}}}" in done.out
    assert train(STAGE_1, *common, f"run.output_dir={tmp_path / 'without'}").code == 0
    stored = [*common, f"model.features={store}", *NO_TOWERS]
    assert train(STAGE_1, *stored, f"run.output_dir={tmp_path / 'with'}").code == 0
    without = losses(tmp_path / "without")
    assert losses(tmp_path / "with") == pytest.approx(without, rel=1e-5)
    assert len(set(without)) == 6
    for options, before, name in ((stored, "without", "there"), (common, "with", "back")):
        middle = f"run.resume_ckpt_path={tmp_path / before / 'checkpoint_step000003.pth'}"
        resumed = train(STAGE_1, *options, middle, f"run.output_dir={tmp_path / name}")
        assert resumed.code == 0, resumed.err
        assert losses(tmp_path / name) == pytest.approx(without[3:], rel=1e-5)


@pytest.mark.parametrize("source", ["sound", "frames"])
def test_the_audio_branch_trains_from_a_store_without_imagebind(world, tmp_path, train, command, monkeypatch, source):
    common = [f"paths.world={world}", *SHORT, f"model.audio_source={source}"]
    assert train(SOUND, *common, f"run.output_dir={tmp_path / 'without'}").code == 0
    store = tmp_path / "store"
    done = command("cache-features", "--cfg-path", SOUND, "--output", store, "--options", *common)
    assert done.code == 0, done.err
    monkeypatch.setattr(media, "_read_training", unread)
    stored = [*common, f"model.features={store}", "model.imagebind_ckpt_path=nowhere"]
    trained = train(SOUND, *stored, f"run.output_dir={tmp_path / 'with'}")
    assert trained.code == 0, trained.err
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)


def unread(*_: Any) -> None:
    raise AssertionError("a file is read")


def test_any_record_of_a_manifest_trains_from_a_store_and_plain_text_does_too(
    world, tmp_path, train, command, monkeypatch
):
    clips = sorted(map(str, world.glob("webvid/videos/**/*.mp4")))
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(folder / f"{number}.png")
    image = str(next(world.glob("cc3m/image/*.jpg")))

    def talk(question: str, answer: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]

    records: list[dict[str, Any]] = [
        {"video": clips[0], "caption": "A clip."},
        {"video": clips[1], "start": 0.5, "end": 1.5, "caption": "A part of a clip."},
        {"frames": str(folder), "fps": 2, "caption": "A folder of frames."},
        {"image": image, "conversations": talk("What is it?", "A picture.")},
        {"video": [clips[2], clips[3]], "image": image, "conversations": talk("<video> <video> <image> Which?", "B.")},
        {"conversations": talk("Hello?", "Hello.")},
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, records)))
    crops = "{name: alpro_video_train, n_frms: 4, image_size: 64}"
    options = [f"paths.world={world}", *SHORT, "datasets.webvid.sample_ratio=0", "datasets.cc_sbu_align.sample_ratio=0"]
    options += ["datasets.mine.name=manifest", f"datasets.mine.build_info.manifest={tmp_path / 'mine.jsonl'}"]
    options += ["datasets.mine.build_info.allow_outside=true", f"datasets.mine.vis_processor.train={crops}"]
    options += ["datasets.mine.views=2"]
    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'without'}").code == 0
    store = tmp_path / "store"
    done = command("cache-features", "--cfg-path", STAGE_1, "--output", store, "--options", *options)
    assert done.code == 0, done.err
    monkeypatch.setattr(media, "_read_training", unread)
    trained = train(STAGE_1, *options, f"model.features={store}", *NO_TOWERS, f"run.output_dir={tmp_path / 'with'}")
    assert trained.code == 0, trained.err
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)


def test_fewer_frames_need_no_new_pass_and_more_only_those_that_are_missing(
    world, tmp_path, own, train, monkeypatch, root
):
    def n_frames(n: int) -> list[str]:
        processor = f"{{name: alpro_video_eval, n_frms: {n}, image_size: 64}}"
        return [f"paths.world={world}", *SHORT, f"datasets.webvid.vis_processor.train={processor}"]

    before = keys(own)
    clips = [frames for frames in before.values() if len(frames) == 4]
    assert len(clips) == 60
    monkeypatch.setattr(media, "_read_training", unread)
    fewer = train(STAGE_1, *n_frames(2), f"model.features={own}", f"run.output_dir={tmp_path / 'fewer'}")
    assert fewer.code == 0, fewer.err
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    assert train(STAGE_1, *n_frames(2), f"run.output_dir={tmp_path / 'anew'}").code == 0
    assert losses(tmp_path / "fewer") == pytest.approx(losses(tmp_path / "anew"), rel=1e-5)

    more = train(STAGE_1, *n_frames(8), f"model.features={own}", f"run.output_dir={tmp_path / 'more'}")
    assert more.code == 1
    assert "its features (video) are not in" in more.err
    assert cache(STAGE_1, own, *n_frames(8)) == 0
    after = keys(own)
    assert after.keys() == before.keys()
    grown = [frames for key, frames in after.items() if len(before[key]) == 4]
    assert {len(frames) for frames in grown} == {8}
    assert all(len(set(frames)) == 8 for frames in grown)  # none twice
    assert train(STAGE_1, *n_frames(8), f"model.features={own}", f"run.output_dir={tmp_path / 'more'}").code == 0


def test_a_killed_command_goes_on_after_its_last_shard(world, tmp_path, own, root, monkeypatch, capfd):
    for name in shard_names(own):
        (own / name).unlink()
    options = [f"paths.world={world}", *SHORT]
    add, added = feature_caching.FeatureCaching._store, []

    def killed(caching: Any, pending: Any) -> None:
        add(caching, pending)
        added.extend(pending)
        if len(added) > 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(feature_caching.FeatureCaching, "_store", killed)
    assert cache(STAGE_1, own, *options) == 130
    (own / ".features-000009-0000.safetensors.1.tmp").write_bytes(b"half")
    done = keys(own)
    assert 20 < len(done) < 68
    monkeypatch.setattr(feature_caching.FeatureCaching, "_store", add)
    capfd.readouterr()
    assert cache(STAGE_1, own, *options) == 0
    assert f"{68 - len(done)} records have files whose features are not stored yet" in capfd.readouterr().err
    assert len(keys(own)) == 68
    assert not list(own.glob(".*.tmp"))
    assert len(Manifest.read(own).shards) == len(shard_names(own))


def test_size_and_break_even_are_told_before_it_goes_on(world, tmp_path, command):
    store = tmp_path / "store"
    done = command(
        "cache-features", "--cfg-path", STAGE_1, "--output", store, "--options", f"paths.world={world}", *SHORT
    )
    assert done.code == 0
    assert "68 records have files whose features are not stored yet" in done.err
    assert "MB of features in all" in done.err
    assert "it pays off after" in done.err or "does not pay off" in done.err
    again = command(
        "cache-features", "--cfg-path", STAGE_1, "--output", store, "--options", f"paths.world={world}", *SHORT
    )
    assert again.code == 0
    assert "0 records have files whose features are not stored yet" in again.err


@pytest.mark.slow
def test_two_processes_store_each_file_once(world, tmp_path, store):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    words += ["video_llama.cli.main", "cache-features", "--cfg-path", STAGE_1, "--output", str(tmp_path / "two")]
    words += ["--workers", "1", "--options", f"paths.world={world}", *SHORT]
    result = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert {name.split("-")[2] for name in shard_names(tmp_path / "two")} == {"0000.safetensors", "0001.safetensors"}
    assert keys(tmp_path / "two") == keys(store)


def refused(train: Any, world: Path, store: Path, *options: str) -> str:
    """What a run that is refused says."""
    result = train(STAGE_1, f"paths.world={world}", *SHORT, f"model.features={store}", *options)
    assert result.code == 1
    assert "Traceback" not in result.err
    return str(result.err)


def test_a_store_of_other_weights_settings_and_number_formats_is_refused(world, tmp_path, store, train):
    output = f"run.output_dir={tmp_path / 'run'}"
    other = tmp_path / "vision.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(WEIGHTS / "vision.safetensors").items()}, other)
    text = refused(train, world, store, output, f"model.vit_ckpt={other}")
    assert f"model.vit_ckpt: {other} is not the file with which the features were made" in text
    text = refused(train, world, store, output, "model.vit_precision=bf16")
    assert "model.vit_precision: bf16; in the store: fp32" in text
    text = refused(train, world, store, output, "model.num_query_token=4")
    assert "model.num_query_token: 4; in the store: 8" in text
    copied = shutil.copy(WEIGHTS / "vision.safetensors", tmp_path / "copy.safetensors")
    assert train(
        STAGE_1, f"paths.world={world}", *SHORT, f"model.features={store}", output, f"model.vit_ckpt={copied}"
    ).code == 0  # fmt: skip


def test_a_store_of_other_sampling_or_fewer_views_is_refused(world, tmp_path, store, train, root):
    output = f"run.output_dir={tmp_path / 'run'}"
    fps = "{name: alpro_video_eval, sampling: fps, fps: 2, n_frms: 4, image_size: 64}"
    text = refused(train, world, store, output, f"datasets.webvid.vis_processor.train={fps}")
    assert "datasets.webvid.vis_processor: AlproVideoEval" in text
    assert "sampling uniform (here fps)" in text
    text = refused(train, world, store, output, *CROPS)
    assert "datasets.webvid.vis_processor: AlproVideoTrain, whose settings are not those in" in text
    views = tmp_path / "views"
    assert cache(STAGE_1, views, f"paths.world={world}", *SHORT, *CROPS) == 0
    text = refused(train, world, views, output, *CROPS, "datasets.webvid.views=3")
    assert "datasets.webvid.vis_processor: views: 3" in text
    assert f"{views} has 2 views of each file" in text
    assert "views: null" in refused(train, world, views, output, *CROPS, "datasets.webvid.views=null")


def test_frames_drawn_anew_for_each_sample_are_not_stored(world, tmp_path, command):
    options = [f"paths.world={world}", *SHORT, *CROPS, "datasets.webvid.views=null"]
    done = command("cache-features", "--cfg-path", STAGE_1, "--output", tmp_path / "store", "--options", *options)
    assert done.code == 1
    assert "datasets.webvid.vis_processor: AlproVideoTrain draws frames or crops at random" in done.err
    assert "Set datasets.webvid.views: K" in done.err


def test_a_half_written_shard_is_named_and_made_again(world, tmp_path, own, train, root):
    output = f"run.output_dir={tmp_path / 'run'}"
    expected = keys(own)
    shard = own / shard_names(own)[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert f"{shard}: half-written or cut short" in refused(train, world, own, output)
    assert cache(STAGE_1, own, f"paths.world={world}", *SHORT) == 0
    assert keys(own) == expected
    assert train(STAGE_1, f"paths.world={world}", *SHORT, f"model.features={own}", output).code == 0


def test_a_store_that_is_not_complete_and_a_folder_that_is_none_are_refused(world, tmp_path, own, train, command):
    output = f"run.output_dir={tmp_path / 'run'}"
    manifest = json.loads((own / "manifest.json").read_text())
    (own / "manifest.json").write_text(json.dumps({**manifest, "version": "0.0.1"}))
    assert "written by video_llama 0.0.1" in refused(train, world, own, output)
    (own / "manifest.json").write_text(json.dumps({**manifest, "index": None}))
    assert "cache-features has not finished" in refused(train, world, own, output)
    (own / "manifest.json").unlink()
    assert "not a store that video-llama cache-features wrote" in refused(train, world, own, output)
    done = command(
        "cache-features", "--cfg-path", STAGE_1, "--output", own, "--options", f"paths.world={world}", *SHORT
    )
    assert done.code == 1
    assert "holds something other than features" in done.err


def test_a_sample_missing_from_the_store_is_named_and_a_damaged_one_is_replaced_as_ever(
    tmp_path, train, root, world, capfd
):
    mine = Path(shutil.copytree(world, tmp_path / "world"))
    clips = sorted(mine.glob("webvid/videos/**/*.mp4"))
    clips[0].write_bytes(b"no clip")
    options = [f"paths.world={mine}", *SHORT, "run.iters_per_epoch=10", "run.max_epoch=1"]
    assert cache(STAGE_1, tmp_path / "store", *options) == 1
    said = capfd.readouterr().err
    assert "1 records cannot be read" in said
    assert str(clips[0]) in said
    assert train(STAGE_1, *options, f"run.output_dir={tmp_path / 'without'}").code == 0
    stored = [*options, f"model.features={tmp_path / 'store'}"]
    assert train(STAGE_1, *stored, f"run.output_dir={tmp_path / 'with'}").code == 0
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)
    ledgers = [(tmp_path / name / "bad_samples.jsonl").read_text() for name in ("without", "with")]
    assert str(clips[0]) in ledgers[0]
    assert ledgers[0] == ledgers[1]
    for clip in clips[1:]:
        os.utime(clip, ns=(0, 0))
    missing = train(STAGE_1, *stored, f"run.output_dir={tmp_path / 'changed'}")
    assert missing.code == 1
    assert ".mp4: its features (video) are not in" in missing.err
    assert "the file has changed since then" in missing.err


def test_trained_encoders_and_answers_are_refused_with_a_store(world, tmp_path, store, train, command):
    output = f"run.output_dir={tmp_path / 'run'}"
    assert "freeze_vit is false" in refused(train, world, store, output, "model.freeze_vit=false")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": 1, "video": "clip.mp4", "question": "What?"}\n')
    assert "answers need the encoders" in refused(train, world, store, output, f"run.eval_questions={questions}")


def test_held_out_losses_come_from_the_store_too(world, tmp_path, train, root):
    held_out = [
        "datasets.seen.name=webvid",
        f"datasets.seen.build_info.anno_dir={world}/webvid/filter_annotation",
        f"datasets.seen.build_info.videos_dir={world}/webvid/videos",
        "datasets.seen.vis_processor.train={name: alpro_video_eval, n_frms: 3, image_size: 64}",
        "datasets.seen.text_processor.train={name: blip_caption}",
        "datasets.seen.split=val",
    ]
    options = [
        f"paths.world={world}",
        *SHORT,
        "run.max_epoch=1",
        *held_out,
        "run.valid_splits=[val]",
        "run.eval_steps=2",
    ]
    assert cache(STAGE_1, tmp_path / "store", *options) == 0
    found = []
    for name, more in (("without", []), ("with", [f"model.features={tmp_path / 'store'}", *NO_TOWERS])):
        assert train(STAGE_1, *options, *more, f"run.output_dir={tmp_path / name}").code == 0
        lines = map(json.loads, (tmp_path / name / "validation.jsonl").read_text().splitlines())
        found.append([line["val/seen/loss"] for line in lines])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0]
