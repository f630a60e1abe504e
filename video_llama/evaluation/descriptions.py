"""Benchmarks whose answers are captions: MSR-VTT, MSVD, VATEX, AudioCaps, Clotho."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from video_llama.common.errors import DataError
from video_llama.common.modalities import FileKind
from video_llama.common.registry import BENCHMARKS
from video_llama.evaluation.annotation_files import json_rows, read_json, table_rows, text
from video_llama.evaluation.published_benchmark import PublishedBenchmark, in_folders
from video_llama.evaluation.question_record import QuestionRecord
from video_llama.evaluation.scorers import CaptionScorer, Scorer
from video_llama.evaluation.short_answers import youtube_names


class Captions(PublishedBenchmark):
    """Clips to be described in a sentence."""

    prompt = "Describe the video in one sentence."
    kind: ClassVar[FileKind] = "video"

    @property
    def scorer(self) -> Scorer:
        """The metrics of the COCO caption tools."""
        return CaptionScorer()

    def read(self) -> list[QuestionRecord]:
        """Read the captions of each clip."""
        question = self.ask("")
        return [
            QuestionRecord(
                id=clip, clip=clip, names=self.names(clip), kind=self.kind, prompt=question, references=tuple(captions)
            )
            for clip, captions in self.captions().items()
        ]

    def captions(self) -> Mapping[str, Sequence[str]]:
        """Return the reference captions of each clip."""
        raise NotImplementedError

    def names(self, clip: str) -> tuple[str, ...]:
        """Return where a clip may be."""
        return in_folders(clip, "videos")


@BENCHMARKS.register("msrvtt_caption")
class MsrvttCaptions(Captions):
    """MSR-VTT (Xu et al., 2016). With ``MSRVTT_JSFUSION_test.csv`` beside the annotations, its 1,000 clips alone (1k-A)."""

    counts_published: ClassVar = {2_990: "test", 1_000: "test 1k-A"}

    def captions(self) -> dict[str, list[str]]:
        """Read ``test_videodatainfo.json``; of a file with several splits, the test split."""
        path = self.files.get("test_videodatainfo.json", "MSRVTT_data.json")
        content = read_json(path)
        if not isinstance(content, dict) or not {"videos", "sentences"} <= content.keys():
            raise DataError(f"{path}: expected an object with 'videos' and 'sentences'")
        videos = json_rows(path, ("video_id", "split"), content["videos"])
        wanted = {str(row["video_id"]) for row in videos if row["split"] == "test"}
        if (subset := self.files.beside("MSRVTT_JSFUSION_test.csv")) is not None:
            wanted &= {row["video_id"] for row in table_rows(subset, ("video_id",))}
        rows = json_rows(path, ("video_id", "caption"), content["sentences"])
        found = grouped((str(row["video_id"]), text(path, row, "caption")) for row in rows)
        if without := sorted(wanted - found.keys()):
            raise DataError(f"{path}: {len(without)} videos of the test split have no sentence, such as {without[0]}")
        return {clip: captions for clip, captions in found.items() if clip in wanted}

    def names(self, clip: str) -> tuple[str, ...]:
        """Return where a clip may be."""
        return in_folders(clip, "videos", "videos/all", "TestVideo")


@BENCHMARKS.register("msvd_caption")
class MsvdCaptions(Captions):
    """MSVD (Chen and Dolan, 2011): the 670 clips from vid1301 on in ``youtube_mapping.txt``."""

    counts_published: ClassVar = {670: "test"}
    FIRST_OF_TEST = 1301

    def captions(self) -> dict[str, list[str]]:
        """Read ``AllVideoDescriptions.txt``."""
        path, mapping = self.files.get("AllVideoDescriptions.txt"), self.files.beside("youtube_mapping.txt")
        if mapping is None:
            raise DataError(f"{path.parent}: no youtube_mapping.txt, which says which clips are for testing")
        tested = {name for key, name in youtube_names(mapping).items() if int(key[3:]) >= self.FIRST_OF_TEST}
        pairs = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                clip, _, caption = line.strip().partition(" ")
                if not caption.strip():
                    raise DataError(f"{path}:{number}: {line!r:.80}; expected '<clip> <caption>'")
                pairs.append((clip, caption))
        found = grouped(pairs)
        if without := sorted(tested - found.keys()):
            raise DataError(f"{path}: {len(without)} clips of the test split have no caption, such as {without[0]}")
        return {clip: captions for clip, captions in found.items() if clip in tested}

    def names(self, clip: str) -> tuple[str, ...]:
        """Return where a clip may be."""
        return in_folders(clip, "YouTubeClips", "videos")


@BENCHMARKS.register("vatex")
class Vatex(Captions):
    """VATEX (Wang et al., 2019), in English."""

    counts_published: ClassVar = {6_000: "public test", 3_000: "val", 25_991: "train"}

    def captions(self) -> dict[str, list[str]]:
        """Read ``vatex_public_test_english_v1.1.json``, or ``vatex_validation_v1.0.json``."""
        path = self.files.get("vatex_public_test_english_v1.1.json", "vatex_validation_v1.0.json")
        found: dict[str, list[str]] = {}
        for row in json_rows(path, ("videoID", "enCap")):
            if not isinstance(row["enCap"], list) or not all(isinstance(caption, str) for caption in row["enCap"]):
                raise DataError(
                    f"{path}: 'enCap' of {row['videoID']} is {row['enCap']!r:.80}; expected a list of captions"
                )
            if found.setdefault(text(path, row, "videoID"), row["enCap"]) is not row["enCap"]:
                raise DataError(f"{path}: several records of {row['videoID']}")
        return found


class _Sounds(Captions):
    prompt = "Describe the sound in one sentence."
    kind: ClassVar[FileKind] = "audio"


@BENCHMARKS.register("audiocaps")
class AudioCaps(_Sounds):
    """AudioCaps (Kim et al., 2019): sounds of ten seconds, ``<YouTube id>_<start>.wav``; one row for each caption."""

    counts_published: ClassVar = {975: "test", 495: "val"}

    def captions(self) -> dict[str, list[str]]:
        """Read ``test.csv``."""
        path = self.files.get("test.csv", "val.csv")
        rows = table_rows(path, ("audiocap_id", "youtube_id", "start_time", "caption"))
        return grouped((f"{row['youtube_id']}_{row['start_time']}", text(path, row, "caption")) for row in rows)

    def names(self, clip: str) -> tuple[str, ...]:
        """Return where a sound may be."""
        return in_folders(clip, "test", "audio")


@BENCHMARKS.register("clotho")
class Clotho(_Sounds):
    """Clotho (Drossos et al., 2020): sounds of 15 to 30 s."""

    counts_published: ClassVar = {1_045: "evaluation or validation", 3_839: "development"}

    def captions(self) -> dict[str, list[str]]:
        """Read ``clotho_captions_evaluation.csv``."""
        path = self.files.get("clotho_captions_evaluation.csv", "clotho_captions_validation.csv")
        columns = [f"caption_{k}" for k in range(1, 6)]
        return grouped(
            (text(path, row, "file_name"), text(path, row, column))
            for row in table_rows(path, ("file_name", *columns))
            for column in columns
        )

    def names(self, clip: str) -> tuple[str, ...]:
        """Return where a sound may be."""
        return in_folders(clip, "evaluation", "clotho_audio_evaluation")


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the captions of each clip, in order."""
    found: dict[str, list[str]] = {}
    for clip, caption in pairs:
        found.setdefault(clip, []).append(caption)
    return found
