"""One table of names, both ways."""

from __future__ import annotations

from video_llama.checkpoints.keymap import KeyMap

TABLE = {
    "blocks.39.{rest}": None,
    "blocks.{i}.{rest}": "vit.blocks.{i}.{rest}",
    "norm.{p}": "ln.{p}",
}


def test_fields_carry_over_and_the_first_line_that_fits_decides() -> None:
    renamed = KeyMap(TABLE).to_ours(["blocks.3.attn.proj.bias", "blocks.39.attn.proj.bias", "norm.weight"])
    assert renamed.names == {"blocks.3.attn.proj.bias": "vit.blocks.3.attn.proj.bias", "norm.weight": "ln.weight"}
    assert renamed.dropped == ["blocks.39.attn.proj.bias"]
    assert renamed.unknown == []


def test_a_name_in_no_line_is_unknown_not_dropped() -> None:
    renamed = KeyMap(TABLE).to_ours(["head.weight", "blocks.x.weight", "norm.weight.more"])
    assert renamed.unknown == ["head.weight", "blocks.x.weight", "norm.weight.more"]


def test_renaming_there_and_back_changes_nothing() -> None:
    names = ["blocks.0.attn.q_bias", "norm.bias"]
    there = KeyMap(TABLE).to_ours(names)
    back = KeyMap(TABLE).to_theirs(there.names.values())
    assert list(back.names.values()) == names
    assert not back.unknown


def test_a_dot_in_a_template_is_a_dot() -> None:
    assert KeyMap({"a.b": "c"}).to_ours(["axb"]).unknown == ["axb"]
