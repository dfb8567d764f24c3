"""`townhall serve` as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[3]


class Child:
    """A server in a process of its own; `said` are the lines of its stderr."""

    def __init__(self, folder, *flags):
        command = [sys.executable, "-m", "townhall", "serve", "--port", "0", *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"at (http://\S+)/v1;", line):
                self.url = f"{found[1]}/v1"
                break
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def chat(self, **fields):
        asked = {"model": "stacy", "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return httpx.stream("POST", f"{self.url}/chat/completions", json=asked, timeout=60)

    def ask(self, **fields):
        asked = {"model": "stacy", "messages": [{"role": "user", "content": "Hi"}], **fields}
        return httpx.post(f"{self.url}/chat/completions", json=asked, timeout=60)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(60)
