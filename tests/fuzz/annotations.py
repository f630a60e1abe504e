"""Annotation files of every layout, read into data sets whose records are all turned into samples."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import WORDS, Region
from tests.fuzz.readers import Reader, Seed, WrongValue
from tests.specs import sample_spec
from tests.unit.datasets.folder import FakeClip, FakeImage, Folder
from video_llama.common.errors import BadRecord, DecodeError
from video_llama.common.registry import PROCESSORS
from video_llama.datasets.base import Dataset
from video_llama.prompts.tokenizer import load_tokenizer

TOKENIZER = Path(__file__).parents[1] / "fixtures/reference/text/tokenizer"
COLUMNS = ("videoid", "page_dir", "name")
ROWS = [(f"c{i}", "p", f'a "quoted" caption, number {i}') for i in range(6)]
VIDEOCHAT = [
    {
        "video": f"p/c{i}.mp4",
        "QA": [{"q": "What is it?", "a": f"Clip {i}."}, {"i": "Be brief.", "q": "Why?", "a": "So."}],
    }
    for i in range(4)
]
LLAVA = [
    {
        "id": str(i),
        "image": f"{i}.jpg",
        "conversations": [
            *({"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A é."}),
            *({"from": "human", "value": "And?"}, {"from": "gpt", "value": "Nothing."}),
        ],
    }
    for i in range(4)
]
CAPTIONS = {"annotations": [{"image_id": f"{i}", "caption": f"picture {i}"} for i in range(4)]}


class Annotations(Reader):
    """The four published layouts. The name of a file tells its layout."""

    words = WORDS

    def valid_files(self) -> list[Seed]:
        PROCESSORS.register("fake_clip")(FakeClip)
        PROCESSORS.register("fake_image")(FakeImage)
        self.spec = sample_spec(load_tokenizer(TOKENIZER), max_txt_len=64)
        texts = {"webvid.csv": _table(","), "webvid.tsv": "\n".join(map("\t".join, [COLUMNS, *ROWS])) + "\n"}
        contents = {"llava.json": LLAVA, "videochat.json": VIDEOCHAT, "captions.json": CAPTIONS}
        texts |= {name: json.dumps(content, indent=1) for name, content in contents.items()}
        texts["llava_lines.json"] = "\n".join(map(json.dumps, LLAVA))
        return [Seed(name, text.encode()) for name, text in texts.items()]

    def regions(self, data: bytes) -> list[Region]:
        return [(0, len(data))]

    def read(self, path: Path) -> str:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            dataset, bad = self._dataset(path, Folder(Path(folder), self.spec)), 0
            for index in range(len(dataset)):
                try:
                    sample = dataset.sample(index, np.random.default_rng(0))
                except (BadRecord, DecodeError) as error:
                    if not str(error).strip():
                        raise WrongValue("a bad record without a reason") from error
                    bad += 1
                    continue
                if not (sample.labels >= 0).any():
                    raise WrongValue(f"record {index} has no target: {dataset.records[index]!r:.200}")
            lines = self._records_in(path)
            if lines is not None and lines != len(dataset):
                raise WrongValue(f"{len(dataset)} records of {lines} in the file")
        return f"{bad} bad records" if bad else ""

    def broken(self, path: Path) -> str:
        return ""

    def _dataset(self, path: Path, folder: Folder) -> Dataset:
        """Make the data set, with media for the records of the valid file."""
        content = path.read_bytes()
        folder.clips(*(f"p/c{i}.mp4" for i in range(6)), *(f"COCO_train2014_{i}.jpg" for i in range(4)))
        match path.name.split(".")[0].split("_")[0]:
            case "webvid":
                folder.file(f"annotations/{path.name}", content)
                return folder.webvid()
            case "llava":
                return folder.llava(content)
            case "videochat":
                return folder.videochat(content)
            case _:
                for i in range(4):
                    folder.file(f"cc/image/{i}.jpg")
                return _cc_sbu_align(folder, content)

    def _records_in(self, path: Path) -> int | None:
        """Return how many records a file has; None if that is open to interpretation."""
        text = path.read_bytes().decode("utf-8-sig", "replace")
        if path.suffix == ".tsv":
            lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            return sum(bool(line) for line in lines) - 1
        if path.suffix == ".csv":
            return sum(bool(row) for row in csv.reader(io.StringIO(text, newline=""), strict=True)) - 1
        return None


def _table(delimiter: str) -> str:
    return "\n".join(
        delimiter.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in [COLUMNS, *ROWS]
    )


def _cc_sbu_align(folder: Folder, content: bytes) -> Dataset:
    folder.file("cc/image/none")
    return folder.cc_sbu_align(content)
