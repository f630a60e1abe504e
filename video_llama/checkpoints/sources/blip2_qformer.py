"""BLIP-2's image Q-Former, with the ``ln_vision`` that goes before it (``blip2_pretrained_flant5xxl.pth``)."""

from __future__ import annotations

from video_llama.checkpoints.sources.bert import qformer_table

TABLE: dict[str, str | None] = {
    "ln_vision.{p}": "vision.ln_vision.{p}",
    "query_tokens": "qformer.query_tokens",
    **qformer_table("Qformer.", "qformer."),
    "t5_proj.{p}": None,  # to the language model that BLIP-2 was trained with
    "opt_proj.{p}": None,
    # the half of the Q-Former that reads text, of which Video-LLaMA has no use
    "Qformer.bert.embeddings.{m}.weight": None,
    "Qformer.bert.encoder.layer.{i}.intermediate.{rest}": None,
    "Qformer.bert.encoder.layer.{i}.output.{rest}": None,
    "Qformer.cls.{rest}": None,
}
