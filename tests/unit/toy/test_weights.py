"""The frozen toy weights are small and load, and the decoder understands words in media slots."""

from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import LlamaForCausalLM

from tools.toy_pretrain.decoder import Encoder
from tools.toy_pretrain.text import Said, Slots
from tools.toy_pretrain.tokenizer import TOKENIZER_FILE, attribute_words
from tools.toy_pretrain.towers import NUM_QUERIES, QFORMER, decode, load_towers
from video_llama.toy.scene import Scene

WEIGHTS = Path(__file__).parents[3] / "video_llama/toy/weights"
LIMIT_MB = 8.0


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(WEIGHTS / "decoder" / TOKENIZER_FILE))


def test_all_weights_together_are_small():
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) <= LIMIT_MB * 1e6


def test_every_attribute_word_is_one_piece(pieces):
    assert all(len(pieces.encode(word)) == 1 for word in attribute_words())


def test_towers_load_and_distinguish_scenes():
    vision, qformer = load_towers(WEIGHTS)
    clips = [decode(Scene(shape, "red", "still", "large", seed=1)) for shape in ("circle", "star")]
    frames = torch.stack([torch.from_numpy(clip[0]).permute(2, 0, 1) for clip in clips])
    with torch.no_grad():
        queries = qformer(vision(frames))
    assert queries.shape == (2, NUM_QUERIES, QFORMER.hidden_size)
    assert (queries[0] - queries[1]).abs().mean() > 0.05


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("What colour is the shape?", "It is green."),
        ("What shape is it?", "It is a star."),
        ("How does it move?", "It goes around."),
        ("How large is it?", "It is small."),
        ("What sound does it make?", "It makes a rising sound."),
    ],
)
def test_the_decoder_answers_from_words_in_the_slots(pieces, question, reply):
    model = LlamaForCausalLM.from_pretrained(WEIGHTS / "decoder", dtype=torch.float32).eval()
    slots = Slots(("around", "green", "star", "small", "rising", "green", "star", "around"))
    message = "The video contains 4 frames sampled at 0.0, 0.5, 1.0, 1.5 seconds. "
    parts = [[Said("###Human: <Video>")], slots, [Said(f"</Video> {message} {question}###Assistant:")]]
    ids = [token for token, _, _ in Encoder(pieces).encode(parts)]
    with torch.no_grad():
        for _ in range(10):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert pieces.decode(ids[-10:]).split("###")[0].strip() == reply
