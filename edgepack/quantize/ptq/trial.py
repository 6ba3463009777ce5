"""What one step of a search brought."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """The outcome of one step.

    Attributes:
        id: The step.
        kept: False when its gain could be chance, or there was none.
        snr_db: SNR of the worst output's logits on held-out samples with it, dB; inf when the outputs are equal.
        gain_db: Gain over the steps before it, averaged over the outputs, dB.
        detail: The best setting, and what failed.
        source: Where the step comes from.
    """

    id: str
    kept: bool
    snr_db: float
    gain_db: float
    detail: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON, figures rounded to two decimals."""
        figures = {"snr_db": round(self.snr_db, 2), "gain_db": round(self.gain_db, 2)}
        return {"step": self.id, "kept": self.kept, **figures, "detail": self.detail, "source": self.source}
