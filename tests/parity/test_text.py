"""Token ids, labels and batches of the original, from the same records on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from tests.parity.conftest import Reference
from tests.unit.datasets.folder import Folder, fake_processors
from video_llama.common.types import IGNORE_LABEL, Media, Sample
from video_llama.datasets.collate import collate
from video_llama.prompts.labels import PLACEHOLDER, Slot, encode, marker, media_segments
from video_llama.prompts.original_mask import measured_lengths, measured_texts
from video_llama.prompts.rendering import tagged
from video_llama.prompts.sample_spec import SampleSpec
from video_llama.prompts.templates import MODEL_TYPES, VICUNA, Span
from video_llama.prompts.tokenizer import SentencePieceTokenizer

LONGEST = 512
"""The number of tokens to which the original truncated."""
SAMPLE_KEYS = {"name", "model_type", "input_ids", "labels", "trained_text"}
RECORD_KEYS = {"video": {"QA", "msg"}, "llava": {"conversations"}}
FRAME = torch.zeros(3, 1, 1, 1, dtype=torch.uint8)
VICUNA_VIDEO_KEYS = {"full_text", "segment_texts", "segment_lens"}


@dataclass
class Text:
    """The goldens, and what computes our values."""

    goldens: dict[str, Any]
    tokenizer: SentencePieceTokenizer
    pieces: sentencepiece.SentencePieceProcessor
    folder: Path

    @property
    def slots(self) -> dict[Any, int]:
        return dict.fromkeys(("image", "video"), self.goldens["num_video_query_token"])

    def with_placeholders(self, ids: list[int]) -> list[int]:
        return [self.goldens["image_patch_token_id"] if i < 0 else i for i in ids]

    def sample(self, kind: str, golden: dict[str, Any], label_mask: str) -> Sample:
        """Our data set's sample of a golden's record."""
        spec = SampleSpec(
            tokenizer=self.tokenizer,
            template=MODEL_TYPES[golden["model_type"]],
            tokens_per_slot=self.slots,
            max_txt_len=32,
            max_instruct_len=LONGEST,
            max_context=2048,
            label_mask=label_mask,  # type: ignore[arg-type]
        )
        self.folder.mkdir(exist_ok=True)
        path = self.folder / str(len(list(self.folder.iterdir())))
        path.mkdir()
        folder = Folder(path, spec)
        if kind == "video":
            folder.clips("1.mp4", content=golden["msg"])
            data: Any = folder.videochat([{"video": "1.mp4", "QA": golden["QA"]}])
        else:
            folder.clips("COCO_train2014_1.jpg")
            text = "".join(turn["value"] for turn in golden["conversations"])
            shown = {"image": "1.jpg"} if "<image>" in text else {}
            data = folder.llava([{"conversations": golden["conversations"]} | shown])
        return data.sample(0, np.random.default_rng(0))


@pytest.fixture
def text(reference: Reference, tmp_path: Path) -> Iterator[Text]:
    model_file = reference.tokenizer / "tokenizer.model"
    with fake_processors():
        yield Text(
            reference.read("text/text_goldens.json"),
            SentencePieceTokenizer(model_file),
            sentencepiece.SentencePieceProcessor(model_file=str(model_file)),
            tmp_path / "records",
        )


def test_the_special_ids_are_the_originals(text: Text) -> None:
    assert text.goldens.keys() == {
        *("num_video_query_token", "image_patch_token_id", "pad_token_id"),
        *("video", "llava", "batches", "tokenize"),
    }
    assert text.goldens["pad_token_id"] == text.tokenizer.pad_id
    assert text.goldens["image_patch_token_id"] == text.tokenizer.vocab_size, "the one added token"


def test_every_string_has_the_originals_ids_and_decodes_as_in_the_original(text: Text) -> None:
    assert text.goldens["tokenize"]
    for golden in text.goldens["tokenize"]:
        written, n_slots = golden["text"], golden["text"].count(PLACEHOLDER)
        for k in range(n_slots):
            written = written.replace(PLACEHOLDER, marker(k), 1)
        pieces = media_segments([Span(written)], [Slot(k, "image") for k in range(n_slots)])
        bos, *ids = text.with_placeholders(encode(pieces, text.tokenizer, {"image": 1}).input_ids)
        assert [bos, *ids] == golden["ids"], golden["text"]
        assert ids == golden["ids_no_special"]
        placeholder = text.goldens["image_patch_token_id"]
        assert [PLACEHOLDER if i == placeholder else text.pieces.id_to_piece(i) for i in ids] == golden["tokens"]
        assert as_the_original_decodes(text, ids) == golden["decoded"]


def as_the_original_decodes(text: Text, ids: list[int]) -> str:
    """Our decoding, with the spaces that the original's library put beside placeholders and before special tokens.

    The latter goes before the segment that a special token ends.
    """
    if (placeholder := text.goldens["image_patch_token_id"]) in ids:
        at = ids.index(placeholder)
        parts = (as_the_original_decodes(text, ids[:at]), as_the_original_decodes(text, ids[at + 1 :]))
        return " ".join(filter(None, (parts[0], PLACEHOLDER, parts[1])))
    out, stretch, special = "", [], text.tokenizer.special.values()
    for i in ids:
        if i in special:
            out += (" " if stretch else "") + text.tokenizer.decode(stretch) + text.pieces.id_to_piece(i)
            stretch = []
        else:
            stretch.append(i)
    return out + text.tokenizer.decode(stretch)


@pytest.mark.parametrize("kind", RECORD_KEYS)
def test_every_record_has_the_originals_ids_and_labels(kind: str, text: Text) -> None:
    assert text.goldens[kind]
    for golden in text.goldens[kind]:
        known = SAMPLE_KEYS | RECORD_KEYS[kind]
        assert known <= golden.keys() <= known | VICUNA_VIDEO_KEYS
        sample = text.sample(kind, golden, "original")
        labels = sample.labels.tolist()
        assert text.with_placeholders(sample.input_ids.tolist()) == golden["input_ids"], golden["name"]
        assert labels == golden["labels"], golden["name"]
        trained = [text.pieces.id_to_piece(label) for label in labels if label != IGNORE_LABEL]
        assert trained == golden["trained_text"]


def test_texts_and_lengths_measured_in_the_original_are_the_same(text: Text) -> None:
    measured = [golden for golden in text.goldens["video"] if "segment_lens" in golden]
    assert measured
    for golden in measured:
        media = [Media("video", FRAME, golden["msg"])]
        turns = [(pair["q"], pair["a"]) for pair in golden["QA"]]
        turns[0] = (tagged(media[0], 0) + turns[0][0], turns[0][1])
        places = PLACEHOLDER * text.goldens["num_video_query_token"]
        assert [s.text.replace(marker(0), places) for s in measured_texts(turns)] == golden["segment_texts"]
        lengths = measured_lengths(turns, media, text.tokenizer, text.slots)
        assert [min(length, LONGEST) for length in lengths] == golden["segment_lens"]
        whole = "".join(span.text for span in VICUNA.render(VICUNA.training, turns))
        assert whole.replace(marker(0), places) == golden["full_text"]


def test_every_batch_is_the_originals(text: Text) -> None:
    assert text.goldens["batches"]
    for model_type, golden in text.goldens["batches"].items():
        assert golden["conv_type"] == "multi", "a batch of instruction samples"
        records = {g["name"]: g for g in text.goldens["video"] if g["model_type"] == model_type}
        samples = [text.sample("video", records[name], "original") for name in golden["order"]]
        batch = collate(samples, text.tokenizer.pad_id)
        assert [text.with_placeholders(row) for row in batch.input_ids.tolist()] == golden["input_ids"]
        assert batch.labels.tolist() == golden["labels"]
        assert batch.attention_mask.tolist() == golden["attention_mask"]
