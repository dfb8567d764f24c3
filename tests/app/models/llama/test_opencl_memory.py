"""A long talk on OpenCL costs no more memory than a short one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tinygrad.helpers import GlobalCounters

from app.models.llama import Llama
from app.models.llama.kv_cache import KVCache

CAPACITY, TOKENS = 200, 1500
MOST_GROWTH = 1 << 21  # bytes: 1.4 KB a token would be noticed


def resident() -> int:
    """Bytes that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def chat_state(llama: Llama, cache: KVCache, tokens: int) -> None:
    for i in range(tokens):
        if len(cache.tokens) >= CAPACITY:
            cache.remove(32, CAPACITY // 2)
        llama.engine.step(i % 200, cache)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell what a process has in memory")
@pytest.mark.parametrize("device", ["CL"], indirect=True)
def test_tokens_in_a_row_leave_nothing_behind(device: str, tiny_llama: Callable[..., Llama]) -> None:
    llama = tiny_llama(device)
    cache = llama.new_cache()
    chat_state(llama, cache, 2 * CAPACITY)  # by then everything is compiled and every buffer is there
    host, on_device = resident(), GlobalCounters.mem_used_per_device[device]
    chat_state(llama, cache, TOKENS)
    assert GlobalCounters.mem_used_per_device[device] == on_device
    assert resident() - host < MOST_GROWTH
