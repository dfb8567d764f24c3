"""What goes wrong in training, in one sentence."""

from ext.tinygrad.errors import TownhallError


class TrainingError(TownhallError):
    """Data, settings or a model that cannot be trained with: names it, the fault and the mend."""
