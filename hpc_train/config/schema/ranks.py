"""[schedule], [comm]: how ranks work together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hpc_train.config.schema.types import NonNegative, NonNegativeInt, PositiveInt, Section


class Schedule(Section):
    """How a global batch is split among the ranks."""

    policy: Literal["static", "round_robin", "proportional", "min_finish_time", "dynamic"] = Field(
        "min_finish_time",
        description="min_finish_time, dynamic, proportional, static, round_robin",
    )
    shares: list[NonNegative] | None = Field(
        None,
        examples=[[2.0, 1.0]],
        description="relative share of each rank, for good; default: equal at first",
    )

    reserve_share: float = Field(
        0.2, ge=0.1, le=0.25, description="dynamic: part of a batch for whoever is free"
    )
    reserve: NonNegativeInt = Field(
        0, description="cores of a rank left to reading and serving (threads = auto)"
    )

    @model_validator(mode="before")
    @classmethod
    def _stated_shares_stay(cls, table: Any) -> Any:
        """Who states shares, and no policy, wants them to stay."""
        stated = isinstance(table, dict) and table.get("shares") is not None
        return {"policy": "static", **table} if stated else table

    @model_validator(mode="after")
    def _shares_are_static(self) -> Schedule:
        if self.shares is not None and self.policy != "static":
            raise ValueError(
                "schedule.shares are for the static policy alone (schedule.policy: "
                f"{self.policy}, schedule.shares: {self.shares})"
            )
        return self


class Comm(Section):
    """How ranks talk to each other."""

    collective: Literal["auto", "native", "ring", "shared", "hierarchical", "nccl"] = Field(
        "auto",
        description="auto: fastest; native: MPI's; ring, shared, hierarchical, nccl",
    )
    gradient_compression: Literal["none", "auto", "fp16", "bf16", "topk", "powersgd"] = Field(
        "none",
        description="what travels of gradients; auto: between nodes, if it pays",
    )
    topk_density: float = Field(
        0.01, gt=0, le=1, description="topk: part of all elements that travels"
    )
    powersgd_rank: PositiveInt = Field(2, description="powersgd: rank of the matrices that travel")
    overlap: bool | Literal["auto"] = Field(
        "auto", description="sum gradients while backward goes on; auto: if it saves time"
    )
