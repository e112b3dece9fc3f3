"""Configuration: what was asked for, checked as a whole before anything starts."""

from __future__ import annotations

from hpc_train.config.allowed import json_schema
from hpc_train.config.load import Loaded, digest, load
from hpc_train.config.schema import Config
from hpc_train.config.text import starter, to_toml

__all__ = ["Config", "Loaded", "digest", "json_schema", "load", "starter", "to_toml"]
