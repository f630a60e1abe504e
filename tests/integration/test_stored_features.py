"""``run.feature_store``: the same numbers, and no clip read twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import losses
from video_llama.conversation.batching import File, FileQuestion, answer_batches
from video_llama.conversation.engine import Engine
from video_llama.conversation.settings import GenerationSettings
from video_llama.evaluation.conditioned_file import ConditionedFile
from video_llama.evaluation.conditions import CONDITIONS, SWAPS, others
from video_llama.processors import media
from video_llama.processors.feature_store import FeatureStore

SHORT = ["run.max_epoch=2", "run.iters_per_epoch=3", "run.warmup_steps=0", "run.batch_size_train=8"]
SHORT += ["model.qformer.dropout=0.1"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths of the files that training has read."""
    found: list[Path] = []
    read = media._read_training

    def counted(path: Path, *rest: Any) -> Any:
        found.append(path)
        return read(path, *rest)

    monkeypatch.setattr(media, "_read_training", counted)
    return found


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("toy/stage1_pretrain", []),
        ("toy/audiobranch_finetune", []),
        ("toy/audiobranch_finetune", ["model.audio_source=frames"]),
    ],
)
def test_losses_are_the_same_without_a_store_with_an_empty_one_and_with_a_full_one(
    world, tmp_path, train, reads, config, options
):
    common = [f"paths.world={world}", *SHORT, *options]
    store = f"run.feature_store={tmp_path / 'features'}"
    n_read = []
    for name, more in (("without", []), ("empty", [store]), ("full", [store])):
        before = len(reads)
        result = train(config, *common, *more, f"run.output_dir={tmp_path / name}")
        assert result.code == 0, result.err
        n_read.append(len(reads) - before)
    assert n_read[0] == 48
    assert 0 < n_read[1] <= 48
    assert n_read[2] == 0
    without = losses(tmp_path / "without")
    assert losses(tmp_path / "empty") == pytest.approx(without, rel=1e-6)
    assert losses(tmp_path / "full") == pytest.approx(without, rel=1e-6)
    assert without[0] != without[-1]


def test_a_store_for_a_model_whose_encoder_is_trained_changes_nothing(world, tmp_path, train, reads):
    common = [f"paths.world={world}", *SHORT, "model.freeze_vit=false", "run.iters_per_epoch=1"]
    store = f"run.feature_store={tmp_path / 'features'}"
    for name, more in (("without", []), ("with", [store])):
        assert train("toy/stage1_pretrain", *common, *more, f"run.output_dir={tmp_path / name}").code == 0
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert len(reads) == 32
    assert not list((tmp_path / "features").rglob("*.safetensors"))


def under(base: File, condition: str, partner: File) -> File:
    chosen = partner if condition in SWAPS else None
    return ConditionedFile(base.kind, base.path, condition=condition, base=base, partner=chosen)


def test_answers_are_the_same_with_stored_features_whatever_is_removed(world, tmp_path):
    folder = world / "heldout" / "videos"
    clips = sorted(path.name for path in folder.iterdir())[:3]
    plain = Engine.from_config("toy")
    stored = Engine(
        plain.model,
        plain.spec,
        plain.video_processor,
        plain.image_processor,
        features=FeatureStore.of(tmp_path / "features", plain.model),
    )
    files = {clip: File("video", str(folder / clip)) for clip in clips}
    asked = [
        [
            FileQuestion(replace(base, use_audio=use_audio), "What shape is it?")
            for base in files.values()
            for use_audio in (None, False)
        ],
        [FileQuestion(File("audio", base.path), "What shape is it?") for base in files.values()],
    ]
    for condition in others(tuple(CONDITIONS)):
        pairs = zip(clips, [*clips[1:], clips[0]], strict=True)
        asked += [[FileQuestion(under(files[a], condition, files[b]), "What shape is it?") for a, b in pairs]]
    settings = GenerationSettings(max_new_tokens=8)
    expected = dict(answer_batches(plain, asked, settings))
    assert dict(answer_batches(stored, asked, settings)) == expected
    assert dict(answer_batches(stored, asked, settings)) == expected
    n_features = len(list((tmp_path / "features").rglob("*.safetensors")))
    assert n_features == 2 * len(clips)
