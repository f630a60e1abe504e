"""Long clips: frames reached by seeking, and packets listed from tables or from the cache, are those of reading the file."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.unit.processors.clips import cut_start, played, set_matrix, write_clip
from tests.unit.processors.interlaced import write_interlaced
from tests.unit.processors.test_decode_frames import FROM_KEYFRAMES, IN_ORDER, read_one_by_one
from video_llama.common.errors import DecodeError
from video_llama.processors.decode import damage, index_cache, mp4, open_video, pyav_backend, seeking
from video_llama.processors.decode.pyav_backend import PyavReader
from video_llama.processors.decode.seeking import Astray, IndexedPackets

B_FRAMES = "bframes=3:keyint=10:min-keyint=10:scenecut=0"
BY_TABLES = {name: how for name, how in FROM_KEYFRAMES.items() if name.endswith(".mp4")}


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch, tmp_path):
    monkeypatch.setattr(pyav_backend, "LONG", 20)
    monkeypatch.setattr(seeking, "FAR", 3)
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "home"))
    damage.log_once.cache_clear()


@pytest.fixture
def seeks(monkeypatch) -> list[int]:
    """The positions that are sought."""
    positions, seek = [], IndexedPackets._seek
    monkeypatch.setattr(IndexedPackets, "_seek", lambda self, to: positions.append(to) or seek(self, to))
    return positions


def read_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> PyavReader:
    with monkeypatch.context() as patched:
        patched.setattr(pyav_backend, "LONG", 10**9)
        patched.setattr(index_cache.CachedIndex, "load", lambda _: None)
        return PyavReader(str(path), None, 60)


def assert_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> PyavReader:
    """A reader of the clip lists the packets that are in the file, and the frames that a player shows, whenever it is opened."""
    expected, shown = read_through(path, monkeypatch), played(path)
    first = PyavReader(str(path), None, 60)
    for reader in (first, PyavReader(str(path), None, 60)):
        for name in ("pts", "dts", "facts"):
            assert np.array_equal(getattr(reader._packets, name), getattr(expected._packets, name)), name
        assert (reader.n_frames, reader.times, reader.duration) == (len(shown), expected.times, expected.duration)
        assert (reader._zero, reader.why_in_order) == (expected._zero, expected.why_in_order)
        wanted = [len(shown) - 1, 0, len(shown) // 2, 3]
        assert np.array_equal(reader.read(wanted).numpy(), shown[wanted])
    assert np.array_equal(read_one_by_one(path), shown)
    return first


@pytest.mark.parametrize("name", FROM_KEYFRAMES | IN_ORDER)
def test_packets_times_and_frames_are_those_of_the_file(tmp_path, monkeypatch, seeks, name):
    path = write_clip(tmp_path / name, n_frames=85, **(FROM_KEYFRAMES | IN_ORDER)[name])
    reader = assert_alike(path, monkeypatch)
    has_index = name.endswith((".mp4", ".mkv", ".webm"))
    if name not in ("one_gop.mp4", "intra_refresh.mp4"):
        assert bool(seeks) == (has_index and not reader.why_in_order)
    assert reader._seeks == has_index


@pytest.mark.parametrize("name", BY_TABLES)
def test_the_tables_of_an_mp4_are_enough(tmp_path, monkeypatch, name):
    path = write_clip(tmp_path / name, n_frames=165, **BY_TABLES[name])
    packets = read_through(path, monkeypatch)._packets
    monkeypatch.setattr(PyavReader, "_read_through", None)
    if name == "interlaced.mp4":
        with pytest.raises(TypeError):  # its packets may hold fields
            open_video(path)
        return
    assert np.array_equal(open_video(path)._packets.pts, packets.pts)


@pytest.mark.parametrize(
    "name", ["rotated.mp4", "cut.mp4", "frag.mp4", "vfr.mp4", "late.mkv", "fields.mkv", "fields.mp4"]
)
def test_unusual_files_are_read_right(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if name.startswith("fields"):
        write_interlaced(path, 30)
    else:
        ticks = {"vfr.mp4": [7 * i + i * i for i in range(90)], "late.mkv": [5000 + 40 * i for i in range(90)]}.get(
            name
        )
        write_clip(path, n_frames=90, x264=B_FRAMES, ticks=ticks)
    if name == "rotated.mp4":
        set_matrix(path, 0, 1, -1, 0)
    if name == "cut.mp4":
        cut_start(path, media_ticks=512 * 13)
    if name == "frag.mp4":
        whole = path.rename(tmp_path / "whole.mp4")
        with (
            av.open(str(whole)) as source,
            av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as to,
        ):
            copy = to.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    to.mux(packet)
    assert_alike(path, monkeypatch)


def test_an_mp4_with_compact_sizes_of_its_samples_is_read_through(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", n_frames=90, x264=B_FRAMES)
    data = bytearray(path.read_bytes())
    at = data.index(b"stsz") - 4
    size, _, _, _, n = struct.unpack_from(">I4sIII", data, at)
    sizes = struct.unpack_from(f">{n}I", data, at + 20)
    compact = struct.pack(f">I4sIII{n}H", 20 + 2 * n, b"stz2", 0, 16, n, *sizes)
    data[at : at + size] = compact + struct.pack(">I4s", size - len(compact), b"free").ljust(size - len(compact), b"\0")
    path.write_bytes(data)
    assert_alike(path, monkeypatch)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_where_seeking_leads_astray_the_file_is_passed_over(tmp_path, monkeypatch, name):
    def astray(*_):
        raise Astray

    path = write_clip(tmp_path / name, n_frames=85, x264=B_FRAMES)
    monkeypatch.setattr(IndexedPackets, "_seek", astray)
    assert np.array_equal(open_video(path).read([80, 3]).numpy(), played(path)[[80, 3]])


def test_tables_that_disagree_with_the_packets_are_an_error_and_then_not_used(tmp_path, monkeypatch):
    def wrong(boxes):
        offsets = right(boxes)
        offsets[71] += 1  # in the middle, where nothing is compared at first
        return offsets

    right = mp4._offsets
    monkeypatch.setattr(mp4, "_offsets", wrong)
    path = write_clip(tmp_path / "clip.mp4", n_frames=250, x264=B_FRAMES)
    video = open_video(path)
    with pytest.raises(DecodeError, match=r"clip\.mp4: its packets are not those that its tables list"):
        video.read(range(60, 90))
    assert np.array_equal(open_video(path).read(range(60, 90)).numpy(), played(path)[60:90])


def test_the_second_time_nothing_is_listed(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", n_frames=85, x264=B_FRAMES)
    vp8 = write_clip(tmp_path / "b.webm", n_frames=45, **IN_ORDER["hidden_frames.webm"])
    before = [open_video(path) for path in (clip, vp8)]
    monkeypatch.setattr(PyavReader, "_listed", None)
    monkeypatch.setattr(PyavReader, "_ticks", None)
    after = [open_video(path) for path in (clip, vp8)]
    assert [(v.times, v.duration, v.why_in_order) for v in before] == [
        (v.times, v.duration, v.why_in_order) for v in after
    ]
    with clip.open("ab") as file:
        file.write(bytes(8))
    with pytest.raises(TypeError):  # the file has changed
        open_video(clip)


def test_a_file_that_takes_the_place_of_another_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        index_cache.hashlib, "blake2b", lambda *_, **__: type("H", (), {"hexdigest": lambda _: "0000"})()
    )
    first, second = (write_clip(tmp_path / f"{n}.mkv", n_frames=n) for n in (30, 40))
    for _ in range(2):
        assert [open_video(path).n_frames for path in (first, second)] == [30, 40]
    assert [file.name for file in (tmp_path / "home/packets").iterdir()] == ["0000.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"\x93NUMPY", None])
def test_a_damaged_index_is_made_again(tmp_path, content):
    path = write_clip(tmp_path / "a.mkv", n_frames=45)
    open_video(path)
    (kept,) = (tmp_path / "home/packets").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert open_video(path).n_frames == 45
    assert kept.read_bytes()[:2] == b"PK"


def test_without_a_folder_to_keep_indexes_in_clips_are_read_with_a_notice(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO_LLAMA_HOME", str(tmp_path / "file"))
    path = write_clip(tmp_path / "a.mkv", n_frames=45)
    with caplog.at_level(logging.WARNING):
        assert [open_video(path).n_frames for _ in range(2)] == [45, 45]
    assert len([r for r in caplog.records if "packet indexes cannot be kept there" in r.message]) == 1


def test_short_clips_leave_no_index(tmp_path):
    open_video(write_clip(tmp_path / "a.mp4", n_frames=19))
    assert not (tmp_path / "home").exists()
