"""[transfer]: weights that were learned elsewhere, and which of them stay as they are."""

from __future__ import annotations

from pydantic import Field, field_validator

from hpc_train.config.schema.types import Names, Section


class Transfer(Section):
    """Weights that were learned elsewhere; patterns are of parameter names, as file names."""

    source: str | None = Field(
        None,
        examples=["features.safetensors"],
        description="run, checkpoint set, safetensors or state_dict to load",
    )
    match: Names = Field(["*"], description="names here that are loaded")
    rename: dict[str, str] = Field(
        default_factory=dict,
        examples=[{"module.": ""}],
        description="beginnings of names there -> beginnings here",
    )
    replace: list[str] = Field(
        default_factory=list, examples=[["head.*"]], description="not loaded: layers to learn anew"
    )
    freeze: list[str] = Field(
        default_factory=list, examples=[["0.*"]], description="parameters that are not trained"
    )
    unfreeze: dict[str, list[str]] = Field(
        default_factory=dict,
        examples=[{"2": ["0.*"]}],
        description="epochs -> patterns: trained once so many epochs are over",
    )

    @field_validator("unfreeze")
    @classmethod
    def _epochs(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for key in value:
            if not key.isdecimal() or int(key) < 1:
                raise ValueError(f'must have numbers of epochs >= 1 as keys ("{key}")')
        return value
