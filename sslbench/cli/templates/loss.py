"""A loss: the log-cosh Dice (Jadon, CIBCB 2020)."""

from pydantic import Field

import sslbench
from sslbench.losses.base import LossOptions


class LogCoshDice(sslbench.Loss):
    """log cosh(s·Dice)/s² in the place of Dice: flatter where a class is nearly right; cross-entropy stays."""

    class Options(LossOptions):
        scale: float = Field(default=1.0, gt=0, description="s; small: half the square of Dice (Jadon: 1)")

    title = "LCDice"
    changes = ("label", "pseudo")

    def dice_term(self, term):
        s = self.options.scale
        return (s * super().dice_term(term)).cosh().log() / s**2
