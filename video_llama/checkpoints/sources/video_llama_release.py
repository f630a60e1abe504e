"""The released Video-LLaMA vision-branch files: ``{"model", "optimizer", "config", "scaler", "epoch"}``."""

from __future__ import annotations

from video_llama.checkpoints.sources.bert import qformer_table

TABLE: dict[str, str | None] = {
    "video_query_tokens": "video_branch.qformer.query_tokens",
    "video_frame_position_embedding.weight": "video_branch.frame_position.weight",
    "llama_proj.{p}": "video_branch.to_decoder.{p}",
    **qformer_table("video_Qformer.", "video_branch.qformer."),
    "Qformer.bert.embeddings.position_ids": None,  # buffers, saved by accident
    "llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": None,
}
