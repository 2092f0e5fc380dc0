"""``--set KEY=VALUE`` of ``distilrec deploy``."""

from __future__ import annotations

import yaml
from pydantic import ValidationError

from components.errors import ConfigError
from serve.release.policy import Policy


def policy_of(options: list[str]) -> Policy:
    """The policy with some bounds changed; values are YAML, such as ``shares=[0.1,0.5]``.

    Raises:
        ConfigError: names the bound, and what was expected.
    """
    values = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in Policy.model_fields:
            known = ", ".join(f"{key}={field.default}" for key, field in Policy.model_fields.items())
            raise ConfigError(f"--set {option}: expected KEY=VALUE with a key of: {known}")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {option}: the value is not YAML") from error
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"--set {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error
