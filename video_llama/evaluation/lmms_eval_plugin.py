"""The entry point of lmms-eval: which class is ``--model video_llama``. Imports lmms-eval only when it asks."""

from __future__ import annotations

from typing import Any


def manifests() -> list[Any]:
    """Return the manifest of the model. Called by lmms-eval, through the entry point group ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest  # at the top, it would import this module again

    path = "video_llama.evaluation.lmms_eval_model.VideoLLaMAModel"
    return [ModelManifest(model_id="video_llama", chat_class_path=path)]
