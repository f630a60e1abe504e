"""What a YAML is for: training a model, using one, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from video_llama.common.errors import ConfigError
from video_llama.config.fields import Registered
from video_llama.config.hints import mark, needed


def why_no_training(data: Mapping[str, Any], run_hint: Any) -> str | None:
    """Return why a YAML is not for training, or None if it is.

    One for training has data sets, and a ``run`` section with at least one setting that its runner cannot do without. Other
    such settings may be missing by mistake. The ``run`` of published eval YAMLs holds nothing but ``task``.

    Args:
        data: the sections, as plain data.
        run_hint: the type of the ``run`` section, marked with how it names its class.
    """
    runner = mark(run_hint)
    assert isinstance(runner, Registered)
    if "run" not in data:
        return "no run section"
    if not data.get("datasets"):
        return "no data sets"
    run = data["run"] if isinstance(data["run"], dict) else {}
    name = run.get(runner.key, runner.default)
    if not isinstance(name, str) or name not in runner.registry:  # a mistake to be reported
        return None
    config = runner.registry.config(name)
    keys = needed(config) if config is not None else []
    return f"none of {', '.join(keys)} is set" if keys and not run.keys() & {*keys} else None


def model_in_use(config: Any) -> Any:
    """Return the Config of the same model in use.

    Args:
        config: the model section.
    Raises:
        ConfigError: the model can only be trained, or lacks something that use needs.
    """
    if not callable(getattr(config, "for_inference", None)):
        raise ConfigError(["model.arch: this model can only be trained: its Config has no for_inference"])
    return config.for_inference()
