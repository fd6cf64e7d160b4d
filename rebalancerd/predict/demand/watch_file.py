"""What judging a demand model has come to, as a small file, so that a restart forgets no verdict and no score."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rebalancerd.predict.demand.skill import REFERENCES, SCORED_STEPS, WAYS, Tally
from rebalancerd.predict.demand.trial import FACTOR_LEAST, FACTOR_MOST, Factors, Record
from rebalancerd.predict.store import StoredFile

H, W = len(SCORED_STEPS), len(WAYS)
Sum = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PerWay = Annotated[list[Annotated[list[Sum], Field(min_length=W, max_length=W)]], Field(min_length=H, max_length=H)]
PerSide = Annotated[list[Annotated[list[Sum], Field(min_length=2, max_length=2)]], Field(min_length=H, max_length=H)]
Factor = Annotated[float, Field(ge=FACTOR_LEAST, le=FACTOR_MOST)]


class Part(BaseModel):
    """A ``Tally``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[list[Sum], Field(min_length=H, max_length=H)]
    squared: PerWay
    pinball: PerWay
    missed: PerSide


class WatchFile(StoredFile):
    """Scores, widths and the best naive way while ``model`` was seated."""

    model: str
    best: str = Field(pattern="^(" + "|".join(REFERENCES) + ")$")
    low: Factor = 1.0
    high: Factor = 1.0
    part_seconds: float = Field(gt=0)
    parts: dict[int, Part] = Field(default={}, max_length=1000)

    @classmethod
    def of(cls, model: str, best: str, factors: Factors, record: Record) -> "WatchFile":
        """Ready to be written."""
        parts = {
            n: Part(
                count=t.count.tolist(),
                squared=t.squared.tolist(),
                pinball=t.pinball.tolist(),
                missed=t.missed.tolist(),
            )
            for n, t in record.parts.items()
        }
        return cls(
            model=model, best=best, low=factors.low, high=factors.high, part_seconds=record.part_seconds, parts=parts
        )

    def record(self, part_seconds: float) -> Record:
        """The scores; none if they were kept in other parts of time."""
        if part_seconds != self.part_seconds:
            return Record(part_seconds, {})
        tallies = {
            n: Tally(
                count=np.array(p.count),
                squared=np.array(p.squared),
                pinball=np.array(p.pinball),
                missed=np.array(p.missed),
            )
            for n, p in self.parts.items()
        }
        return Record(part_seconds, tallies)
