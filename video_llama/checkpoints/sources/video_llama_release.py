"""The released Video-LLaMA files, of the vision branch or the audio branch: ``{"model", "optimizer", "config", "scaler",
"epoch"}``. Names are those of the original's whole model, so that what it trained beside a branch has its place too.
"""

from __future__ import annotations

from video_llama.checkpoints.sources.bert import qformer_table

VISION_BRANCH: dict[str, str | None] = {
    "video_query_tokens": "video_branch.qformer.query_tokens",
    "video_frame_position_embedding.weight": "video_branch.frame_position.weight",
    "llama_proj.{p}": "video_branch.to_decoder.{p}",
    **qformer_table("video_Qformer.", "video_branch.qformer."),
}
AUDIO_BRANCH: dict[str, str | None] = {
    "audio_query_tokens": "audio_branch.qformer.query_tokens",
    "audio_position_embedding.weight": "audio_branch.segment_position.weight",
    "audio_llama_proj.{p}": "audio_branch.to_decoder.{p}",
    **qformer_table("audio_Qformer.", "audio_branch.qformer."),
}
IMAGE_ENCODER: dict[str, str | None] = {
    "visual_encoder.{rest}": "vision.vit.{rest}",
    "ln_vision.{p}": "vision.ln_vision.{p}",
    "query_tokens": "qformer.query_tokens",
    **qformer_table("Qformer.", "qformer."),
}
SAVED_BY_ACCIDENT: dict[str, str | None] = {
    "llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": None,
    "audio_encoder.modality_preprocessors.text.mask": None,
    "audio_encoder.modality_postprocessors.{m}.{i}.log_logit_scale": None,
}
TABLE = {**VISION_BRANCH, **AUDIO_BRANCH, **IMAGE_ENCODER, **SAVED_BY_ACCIDENT}
