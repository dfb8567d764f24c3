"""`townhall` over the scripted model, run as a program of its own: python -m tests.townhall.cli.fake_townhall chat …

FAKE_SCRIPT is a JSON list of answers; FAKE_PAUSE seconds pass before each token, FAKE_READ before each pass over a prompt.
"""

import json
import os
import sys
import time

from tests.townhall.fake import FailingGeneration, FakeBackend, FakeLlama
from townhall.cli import complete_text, model_loading
from townhall.cli.main import main
from townhall.default_window import WINDOW


class SlowGeneration(FailingGeneration):
    def __next__(self):
        time.sleep(float(os.environ.get("FAKE_PAUSE", "0")))
        return super().__next__()


class SlowLlama(FakeLlama):
    def prefill(self, ids, cache, on_progress=None):
        if cache.tokens:  # the persona is there
            time.sleep(float(os.environ.get("FAKE_READ", "0")))
        return super().prefill(ids, cache, on_progress)


def load(options):
    script = json.loads(os.environ.get("FAKE_SCRIPT", '["Fine, thanks."]'))
    return model_loading.Loaded(SlowLlama(script, max_context=options.max_context or WINDOW), options.sampling(), FakeBackend())


if __name__ == "__main__":
    FakeLlama.generation = SlowGeneration
    model_loading.load = complete_text.load = load
    sys.exit(main())
