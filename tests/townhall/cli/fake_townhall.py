"""`townhall` over the scripted model, run as a program of its own: python -m tests.townhall.cli.fake_townhall chat …

FAKE_SCRIPT is a JSON list of answers; FAKE_PAUSE seconds pass before each token.
"""

import json
import os
import sys
import time

from tests.townhall.fake import FailingGeneration, FakeBackend, FakeLlama
from townhall.cli import complete, loading
from townhall.cli.main import main


class SlowGeneration(FailingGeneration):
    def __next__(self):
        time.sleep(float(os.environ.get("FAKE_PAUSE", "0")))
        return super().__next__()


def load(options):
    script = json.loads(os.environ.get("FAKE_SCRIPT", '["Fine, thanks."]'))
    return loading.Loaded(FakeLlama(script, max_context=options.max_context), options.sampling(), FakeBackend())


if __name__ == "__main__":
    FakeLlama.generation = SlowGeneration
    loading.load = complete.load = load
    sys.exit(main())
