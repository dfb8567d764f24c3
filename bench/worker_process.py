"""The process that a Worker starts: one runtime, loaded, whose methods are called by JSON lines."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.worker import Subject, adapters_of, peak_memory
from ext.tinygrad.errors import TownhallError


def main() -> None:
    """The worker's side."""
    subject_name, model, capacity, kv = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    # libraries print where they like: the channel is a descriptor of its own, and what goes to stdout lands on stderr
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    try:
        started = time.perf_counter()
        subject: Subject
        if subject_name == "townhall":
            from bench.ours import Townhall  # the other runtime need not be there

            subject = Townhall(model, capacity, adapters_of(sys.argv[5:]), kv)
        else:
            from bench.peer import LlamaCppPeer

            subject = LlamaCppPeer(model, capacity, kv)
        tell({"result": subject.describe() | {"load_seconds": time.perf_counter() - started}})
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            tell({"result": peak_memory() if method == "peak_memory" else getattr(subject, method)(*arguments)})
    except TownhallError as error:
        tell({"error": str(error)})


if __name__ == "__main__":
    main()
