"""All processes of a run use the same commits of what is on the hub."""

from __future__ import annotations

from typing import Any

from video_llama.checkpoints.sources.references import hub_references
from video_llama.common.distributed import World
from video_llama.common.errors import TrainingError


def check_same_revisions(config: Any, world: World) -> None:
    """Raise TrainingError if this process found another commit on the hub than the first process.

    Args:
        config: of the model section, with commits.
        world: the processes of the run.
    """
    own = [f"{key}: {reference}" for key, reference in hub_references(config)]
    first = world.broadcast_object(own)
    if own != first:
        raise TrainingError(
            f"the first process of the run uses {', '.join(first)}; process {world.rank}, {', '.join(own)}. Name a commit "
            "in the YAML."
        )
