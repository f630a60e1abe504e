"""Names inside a Q-Former: the original's BERT and transformers' Q-Former."""

from __future__ import annotations


def qformer_table(theirs: str, ours: str) -> dict[str, str | None]:
    """Return the lines for one Q-Former.

    Args:
        theirs: what stands before ``bert.`` in their names.
        ours: what stands before ``bert.`` in ours.
    """
    layer, own = f"{theirs}bert.encoder.layer.{{i}}.", f"{ours}bert.encoder.layer.{{i}}."
    return {
        f"{theirs}bert.embeddings.position_ids": None,  # a buffer, saved by accident
        f"{theirs}bert.embeddings.LayerNorm.{{p}}": f"{ours}bert.layernorm.{{p}}",
        f"{layer}attention.self.{{m}}.{{p}}": f"{own}attention.attention.{{m}}.{{p}}",
        f"{layer}attention.output.{{m}}.{{p}}": f"{own}attention.output.{{m}}.{{p}}",
        f"{layer}crossattention.self.{{m}}.{{p}}": f"{own}crossattention.attention.{{m}}.{{p}}",
        f"{layer}crossattention.output.{{m}}.{{p}}": f"{own}crossattention.output.{{m}}.{{p}}",
        f"{layer}intermediate_query.dense.{{p}}": f"{own}intermediate_query.dense.{{p}}",
        f"{layer}output_query.{{m}}.{{p}}": f"{own}output_query.{{m}}.{{p}}",
    }
