"""Whether the weights that --size found are of that size."""

import re
from pathlib import Path

from townhall.errors import ModelError

TOLERANCE = 1.35  # a "7B" has 6.7 billion parameters, a "30B" 32.5, a "1B" 1.24


def check_size(size: str, path: Path) -> None:
    """ModelError where the files describe another size: the architecture is theirs to tell, --size only names a folder."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)[bB]", size)
    if found is None:
        return
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.checkpoint import parameters

    count = parameters(open_checkpoint(path).config)
    wanted = float(found[1]) * 1e9
    if not wanted / TOLERANCE <= count <= wanted * TOLERANCE:
        raise ModelError(f"--size {size} found {path}, which holds {count / 1e9:.3g} billion parameters; put the right weights there")
