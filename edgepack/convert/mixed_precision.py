"""Replacement of mixed precision in a Keras configuration, because TFLite has no half-precision kernels."""

from typing import Any

_MIXED = {"mixed_float16", "mixed_bfloat16"}


def without_mixed_precision(config: Any) -> tuple[Any, set[str]]:
    """Return a configuration with float32 in place of mixed precision, and the policies that were replaced.

    Mixed precision stores weights in float32 and computes in half precision, for which TFLite has no kernels.
    """
    if isinstance(config, list):
        parts = [without_mixed_precision(item) for item in config]
        return [part for part, _ in parts], set().union(*(policies for _, policies in parts))
    if not isinstance(config, dict):
        return config, set()
    name = config["config"].get("name") if isinstance(config.get("config"), dict) else None
    if config.get("class_name") in {"DTypePolicy", "Policy"} and name in _MIXED:
        return {**config, "config": {**config["config"], "name": "float32"}}, {str(name)}
    changed = {key: without_mixed_precision(value) for key, value in config.items()}
    return {key: part for key, (part, _) in changed.items()}, set().union(
        *(policies for _, policies in changed.values())
    )
