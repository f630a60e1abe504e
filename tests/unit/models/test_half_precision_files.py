"""A model whose files are in half precision, on a device that is slow in it: what it computes, learns and holds in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tiny
from tests.tiny import batch, sample, sound
from tests.unit.models.decoder.test_lora import LORA, give_effect
from video_llama.checkpoints.io import write_pth, write_weights
from video_llama.models import precision
from video_llama.models.config import VideoLLaMAConfig
from video_llama.models.decoder.lora_merge import merge_lora
from video_llama.models.video_llama import VideoLLaMA

SEEN = batch(sample("image", 1), sample("clip", 4), sample("both", sound(2), 2), sample("text"))
HALF = torch.float16
PRECISIONS = ("vit_precision", "llama_precision", "audio_precision")


@pytest.fixture(autouse=True)
def slow_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file for each frozen part, all in fp16, and one for the branches, in fp32."""
    folder = tmp_path_factory.mktemp("half")
    decoder = tiny.write_decoder(folder / "decoder")
    tensors = {name: t.half() for name, t in load_file(decoder / "model.safetensors").items()}
    save_file(tensors, decoder / "model.safetensors", {"format": "pt"})
    model = tiny.model(decoder, **tiny.AUDIO)
    paths = {key: folder / f"{key}.pth" for key in ("vit_ckpt", "q_former_model", "imagebind_ckpt_path", "ckpt")}
    for key, part in (("vit_ckpt", "vision"), ("q_former_model", "qformer"), ("imagebind_ckpt_path", "audio_encoder")):
        state = getattr(model, part).state_dict()
        write_pth(paths[key], {f"{part}.{name}": t.half() for name, t in state.items()})
    write_pth(paths["ckpt"], model.trainable_state())
    return {"llama_model": str(decoder), **{key: str(path) for key, path in paths.items()}}


def config(files: dict[str, str], **changes: Any) -> VideoLLaMAConfig:
    settings: dict[str, Any] = {**tiny.AUDIO, **files, "vit_precision": "auto", "llama_precision": "auto", **changes}
    return tiny.config(Path(settings.pop("llama_model")), **settings)


def built(files: dict[str, str], **changes: Any) -> VideoLLaMA:
    return VideoLLaMA.from_config(config(files, **changes)).eval()


@pytest.fixture(scope="module")
def exact(files: dict[str, str]) -> VideoLLaMA:
    return built(files, **dict.fromkeys(PRECISIONS, "fp32"))


def everything(model: VideoLLaMA) -> Iterator[Tensor]:
    """Yield what the encoders make, the loss, its gradients, and an answer."""
    for group in model.encode_frozen(SEEN.media):
        yield group.data
    model.zero_grad()
    loss = model(SEEN).loss_sum
    yield loss.detach()
    loss.backward()
    for p in model.parameters():
        if p.requires_grad:
            yield torch.zeros(()) if p.grad is None else p.grad.clone()
    embeds = model.embed_prompt(SEEN.input_ids[:1], []).detach()
    yield model.decoder.lm.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False, pad_token_id=0)


@pytest.mark.parametrize("asked", ["auto", "fp16"])
@pytest.mark.parametrize("use_grad_checkpoint", [False, True])
def test_the_model_computes_and_learns_exactly_what_it_does_in_fp32(files, exact, asked, use_grad_checkpoint):
    model = built(files, **dict.fromkeys(PRECISIONS, asked), use_grad_checkpoint=use_grad_checkpoint)
    stored = [*model.vision.vit.parameters(), *model.decoder.parameters()]
    stored += [] if asked == "auto" else model.audio_encoder.parameters()
    assert {p.dtype for p in stored} == {HALF}
    assert {p.dtype for p in model.parameters() if not any(p is one for one in stored)} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(everything(model), everything(exact), strict=True))


def test_strict_precision_computes_in_half_precision(files, exact):
    model = built(files, **dict.fromkeys(PRECISIONS, "fp16"), strict_precision=True)
    loss = model(SEEN).loss_sum
    torch.testing.assert_close(loss, exact(SEEN).loss_sum, rtol=0.02, atol=0)
    assert not torch.equal(loss, exact(SEEN).loss_sum)
    assert model.decoder.lm.dtype == HALF


def test_what_is_trained_is_in_fp32(files):
    model = built(files, freeze_vit=False, freeze_qformer=False)
    assert {p.dtype for p in model.vision.parameters()} == {torch.float32}
    model(SEEN).loss_sum.backward()
    assert model.vision.vit.patch_embed.proj.weight.grad is not None


def test_a_published_fp16_is_reported_once_and_the_default_is_not(files, caplog):
    built(files)
    assert "slow" not in caplog.text
    with caplog.at_level(logging.WARNING):
        built(files, vit_precision="fp16")
    (notice,) = [record.getMessage() for record in caplog.records if "slow" in record.getMessage()]
    assert notice.startswith("warning: model.vit_precision: this CPU is slow in fp16")


def test_frozen_parts_stay_mapped_to_their_files(files):
    model = built(files)
    mapped = mapped_ranges(files)
    for name, p in model.named_parameters():
        if name.startswith(("vision.vit.", "decoder.")):
            assert any(start <= p.data_ptr() < end for start, end in mapped), name
        if p.requires_grad:
            assert not any(start <= p.data_ptr() < end for start, end in mapped), name


def test_frozen_parts_stay_mapped_where_a_branch_starts_anew(files):
    model = built(files, ckpt=None)
    mapped = mapped_ranges(files)
    for name, p in model.named_parameters():
        if name.startswith(("vision.vit.", "decoder.")):
            assert any(start <= p.data_ptr() < end for start, end in mapped), name


def test_initial_values_take_no_memory_while_the_decoder_loads(files, monkeypatch):
    load, without = VideoLLaMA.load_decoder, []

    def spy(model, *args, **kwargs):
        without.extend(name for name, p in model.named_parameters() if p.is_meta)
        return load(model, *args, **kwargs)

    monkeypatch.setattr(VideoLLaMA, "load_decoder", spy)
    model = built(files, ckpt=None)
    assert set(without) == {
        name for name, _ in model.named_parameters() if name.startswith(("vision.", "qformer.", "audio_encoder."))
    }


def mapped_ranges(files: dict[str, str]) -> list[tuple[int, int]]:
    """Addresses at which this process has the files mapped."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    parent = str(Path(files["llama_model"]).parent)
    ranges = [line[0].split("-") for line in lines if len(line) == 6 and line[5].startswith(parent)]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def test_training_changes_no_file(files):
    before = {path: file.read_bytes() for path in files.values() if (file := Path(path)).is_file()}
    model = built(files)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(SEEN).loss_sum.backward()
    optimizer.step()
    assert {path: Path(path).read_bytes() for path in before} == before


def test_a_later_file_overwrites_a_mapped_one_in_memory_alone(files, tmp_path):
    vit = built(files).vision.state_dict()
    write_weights(tmp_path / "vit.safetensors", {f"vision.{name}": t.clone() + 1 for name, t in vit.items()})
    branch = torch.load(files["ckpt"], weights_only=True)
    write_pth(tmp_path / "ckpt.pth", branch | {f"vision.{name}": t.clone() + 2 for name, t in vit.items()})
    first, second = (tmp_path / "vit.safetensors").read_bytes(), (tmp_path / "ckpt.pth").read_bytes()
    changed = {**files, "vit_ckpt": str(tmp_path / "vit.safetensors"), "ckpt": str(tmp_path / "ckpt.pth")}
    found = built(changed).vision.state_dict()
    assert all(torch.equal(found[name], t + 2) for name, t in vit.items())
    assert (tmp_path / "vit.safetensors").read_bytes() == first
    assert (tmp_path / "ckpt.pth").read_bytes() == second


def test_what_is_in_no_file_starts_as_it_did(files):
    """The random numbers of a branch that starts anew, and so the losses of a run, do not depend on the number format."""
    started = []
    for changes in ({}, dict.fromkeys(PRECISIONS, "fp32")):
        torch.manual_seed(0)
        started.append(built(files, **changes, ckpt=None).trainable_state())
    assert all(torch.equal(t, started[1][name]) for name, t in started[0].items())


# Adapters and quantised decoders


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
def test_adapters_learn_in_a_decoder_of_half_precision_weights(files, quantization):
    losses = []
    for asked in ("auto", "fp32"):
        model = built(files, llama_precision=asked, lora=LORA, quantization=quantization)
        give_effect(model)
        loss = model(SEEN).loss_sum
        loss.backward()
        grads = [p.grad for name, p in model.named_parameters() if "lora_" in name]
        assert all(g is not None and g.dtype == torch.float32 and bool(g.any()) for g in grads)
        losses.append((loss.detach(), torch.cat([g.flatten() for g in grads])))
    (a, of_a), (b, of_b) = losses
    torch.testing.assert_close(a, b, rtol=0 if quantization is None else 1e-3, atol=0)
    assert torch.cosine_similarity(of_a, of_b, dim=0) > 0.999


def test_merged_adapters_are_in_the_format_of_the_decoder(files, tmp_path):
    model = built(files, lora=LORA)
    give_effect(model)
    write_pth(tmp_path / "ckpt.pth", {"model": model.trainable_state()})
    merge_lora(VideoLLaMA, config(files, lora=LORA, ckpt=str(tmp_path / "ckpt.pth")), tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert {t.dtype for t in merged.values()} == {HALF}
    of_merged = {"llama_model": str(tmp_path / "merged"), "ckpt": str(tmp_path / "merged" / "branch.pth")}
    plain = built({**files, **of_merged})
    torch.testing.assert_close(plain(SEEN).loss_sum, model(SEEN).loss_sum, rtol=1e-3, atol=0)
