"""MiniGPT-4's linear layer to the decoder (``pretrained_minigpt4.pth``)."""

from __future__ import annotations

TABLE: dict[str, str | None] = {"llama_proj.{p}": "video_branch.to_decoder.{p}"}
