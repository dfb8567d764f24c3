"""The one error a person sees as a sentence: everything that is wrong input, not a bug, derives from it."""


class TownhallError(Exception):
    """Wrong input: names the file or flag, the fault and the mend. Commands print it and exit 2; the server answers 400."""
