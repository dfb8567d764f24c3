"""Speed of the CPU kernels one by one, without a model: GB/s of weights for decode, GMAC/s for prefill.

    python bench/kernels.py [--type Q4_1] [--kv f16|q8_0] [--shape smollm2-135m|llama-1.1b] [--threads 2] [--tokens 128] [--arch native]

Compiled programs are called directly, task by task, from threads that share nothing; weights, and caches, of as many layers as fill
--megabytes are walked in turn, as decode does, so that memory is read and not the third-level cache; MOST_CACHES short contexts fill less.
Medians over --repeats of the busiest thread's processor time, which other processes disturb least.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from tinygrad import Tensor

    from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix

MOST_CACHES = 256

DRIVER = """
typedef unsigned long u64;
typedef void kernel(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64);
void drive(kernel* f, u64* calls, long n_calls, long n_args, long tasks, long reps, long first, long step) {
  for (long r = 0; r < reps; r++) {
    u64 a[16];
    for (long i = 0; i < n_args; i++) a[i] = calls[r % n_calls * n_args + i];
    for (long t = first; t < tasks; t += step) {
      a[n_args - 1] = t;
      f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]);
    }
  }
}
"""


@dataclass(frozen=True)
class KernelShape:
    dim: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    layers: int


SHAPES = {
    "smollm2-135m": KernelShape(576, 1536, 9, 3, 64, 49152, 30),
    "llama-1.1b": KernelShape(2048, 5632, 32, 4, 64, 32000, 22),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", default="Q4_1", help="ggml type of the weights")
    parser.add_argument("--kv", choices=("f16", "q8_0"), default="f16", help="what the cache is made of")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="of a prefill")
    parser.add_argument("--context", type=int, default=512, help="positions in the cache")
    parser.add_argument("--arch", default="native", help="compile for another CPU, like haswell")
    parser.add_argument("--megabytes", type=int, default=96, help="of weights, and of caches, walked in turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--reading", choices=("default", "plain", "far"), default="default", help="of weights by one token")
    parser.add_argument("--only", default="", help="kernels whose label has this")
    options = parser.parse_args()

    from ext.tinygrad import toolchain

    if options.arch != "native":
        os.environ["DEV"] = f"CPU:CLANG:x86_64,{options.arch}"
    else:
        os.environ["CPU"] = "1"
    toolchain.prepare_environment()
    Bench(options).run()


class Bench:
    def __init__(self, options: argparse.Namespace):
        import numpy as np
        from tinygrad.device import Device

        from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
        from ext.tinygrad.kernels.packed.formats import format_of

        self.options, self.shape, self.np = options, SHAPES[options.shape], np
        self.kernels = CPUKernels()
        self.kernels.readings = {} if options.reading == "default" else {format_of(options.type).name: options.reading}
        if reason := self.kernels.available():
            sys.exit(f"kernels: {reason}")
        lib = Device["CPU"].renderer.compiler.compile(DRIVER)
        from tinygrad.runtime.support.elf import jit_loader

        self._driver = self._load(jit_loader(lib))
        self.random = np.random.default_rng(0)

    def _load(self, code: bytes) -> Callable[..., None]:
        import mmap

        self._memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        return ctypes.CFUNCTYPE(None, *([ctypes.c_uint64] * 8))(address)

    def weight(self, rows: int, cols: int) -> PackedMatrix:
        """A random weight; its bytes matter to the speed no more than its values."""
        from ext.tinygrad.kernels.packed.formats import format_of
        from ext.tinygrad.kernels.packed.memory import allocate
        from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix

        form, np = format_of(self.options.type), self.np
        raw = allocate(form.nbytes(rows, cols))
        if form.element:
            values = raw.view(np.float16 if form.element == "f16" else np.float32)
            values[:] = self.random.standard_normal(len(values), np.float32)
        else:
            raw[:] = self.random.integers(0, 256, len(raw), dtype=np.uint8)
            record = raw.view(form.record)
            for name in ("supers",) if form.k_scales else ("scales", "minima"):
                (record if form.k_scales else record["blocks"])[name] = 0.01
        return PackedMatrix.from_packed(form, (rows, cols), raw, "CPU")

    def tensor(self, *shape: int) -> Tensor:
        from tinygrad import Tensor

        values = self.random.standard_normal(shape).astype(self.np.float32)
        return Tensor(values, device="CPU").realize()

    def cache(self, *shape: int) -> Tensor:
        from tinygrad import dtypes

        from ext.tinygrad.kernels.packed.memory import allocate, as_tensor
        from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements

        if self.options.kv == "q8_0":
            shape = (*shape[:-1], row_elements(shape[-1], QUANTISED))
            memory = allocate(math.prod(shape))
            rows = memory.reshape(shape)
            rows[:] = self.random.integers(0, 256, shape, dtype=self.np.uint8)
            rows[..., self.shape.head_dim :].view(self.np.float16)[:] = 0.01
            return as_tensor(memory, dtype=QUANTISED, shape=shape)
        memory = allocate(math.prod(shape) * 2)
        memory.view(self.np.float16)[:] = self.random.standard_normal(math.prod(shape), self.np.float32)
        return as_tensor(memory, dtype=dtypes.float16, shape=shape)

    def run(self) -> None:
        from ext.tinygrad.kernels.protocol import rope_table

        s, k, context = self.shape, self.kernels, self.options.context
        rows = context + self.options.tokens
        layer_bytes = self.options.megabytes << 20
        o = self.options
        print(f"{o.shape} {o.type} kv={o.kv} arch={o.arch} threads={o.threads} context={context}")
        rope = self.tensor(1)
        rope = type(rope)(rope_table(rows, s.head_dim, s.head_dim, 1e4), device="CPU").realize()
        read = 4 * s.kv_heads * s.head_dim * context  # bytes of a layer's keys and values, as float16
        n_caches = min(MOST_CACHES, max(s.layers, layer_bytes // read))
        caches = [(self.cache(s.kv_heads, rows, s.head_dim), self.cache(s.kv_heads, rows, s.head_dim)) for _ in range(n_caches)]
        norm = self.tensor(s.dim)

        def copies(*shapes: tuple[int, int]) -> list[list[PackedMatrix]]:
            one = [self.weight(*shape) for shape in shapes]
            n = max(1, min(s.layers, layer_bytes // sum(w.nbytes for w in one)))
            return [one, *([self.weight(*shape) for shape in shapes] for _ in range(n - 1))]

        qkv = copies((s.heads * s.head_dim, s.dim), (s.kv_heads * s.head_dim, s.dim), (s.kv_heads * s.head_dim, s.dim))
        wo, gated, down = copies((s.dim, s.heads * s.head_dim)), copies((s.hidden, s.dim), (s.hidden, s.dim)), copies((s.dim, s.hidden))
        head = copies((s.vocab, s.dim))[:1]

        def project(x: Tensor, at: int, w: list[PackedMatrix]) -> Tensor:
            return k.norm_qkv(x, norm, 1e-5, w[0], w[1], w[2], rope, *caches[0], at)[0]

        def cases(T: int, at: int) -> Iterator[tuple[str, list[Callable[[], Any]], list[PackedMatrix], int]]:
            x, q = self.tensor(T, s.dim), self.tensor(T, s.heads, s.head_dim)
            h, f = self.tensor(T, s.heads * s.head_dim), self.tensor(T, s.hidden)
            yield "norm_qkv", [partial(project, x, at, w) for w in qkv], qkv[0], s.layers
            yield "attend", [partial(k.attend, q, c_k, c_v, at) for c_k, c_v in caches], [], s.layers
            yield "linear_residual o", [partial(k.linear_residual, h, w, x) for (w,) in wo], wo[0], s.layers
            yield "norm_gated", [partial(k.norm_gated, x, norm, 1e-5, gate, up) for gate, up in gated], gated[0], s.layers
            yield "linear_residual down", [partial(k.linear_residual, f, w, x) for (w,) in down], down[0], s.layers
            if T == 1:
                yield "norm_linear head", [partial(k.norm_linear, x, norm, 1e-5, w) for (w,) in head], head[0], 1

        for T in (1, self.options.tokens):
            at, total = context - T, 0.0
            for label, calls, weights, times in cases(T, at):
                if self.options.only not in label:
                    continue
                parts = self.time(calls)
                seconds = sum(t for _, t in parts)
                macs = T * sum(w.shape[0] * w.shape[1] for w in weights)
                if label == "attend":
                    macs = 2 * s.heads * s.head_dim * (T * at + T * (T + 1) // 2)
                nbytes = sum(w.nbytes for w in weights) if weights else 2 * caches[0][0].nbytes() // rows * (at + 1)
                total += seconds * times
                rate = f"{nbytes / seconds / 1e9:6.1f} GB/s" if T == 1 else f"{macs / seconds / 1e9:6.1f} GMAC/s"
                programs = "  ".join(f"{n} {t * 1e6:.1f}" for n, t in parts)
                print(f"T={T:<4} {label:22} {seconds * 1e6:9.1f} us {rate}   x {times:<3} {programs}", flush=True)
            print(f"T={T:<4} whole model {total * 1e3:.2f} ms: {T / total:.0f} tokens/s without launches")

    def time(self, calls: list[Callable[[], Any]]) -> list[tuple[str, float]]:
        """The programs of a call and the seconds of each."""
        programs = [self.programs(call()) for call in calls]
        # a model's planner gives the same memory to the results of all layers
        for launches in programs[1:]:
            for mine, shared in zip(launches, programs[0]):
                mine[1][0] = shared[1][0]
        return [(programs[0][i][3], self.time_program([p[i] for p in programs])) for i in range(len(programs[0]))]

    def programs(self, out: Tensor) -> list[tuple[int, list[int], int, str]]:
        """What computing `out` launches: (address, arguments, tasks) each."""
        from tinygrad.device import Device
        from tinygrad.engine.realize import compile_linear, get_call_arg_uops, get_runtime

        linear, var_vals = out.linear_with_vars()
        found = []
        for call in compile_linear(linear).src:
            program = call.src[0]
            info = program.arg
            runtime = get_runtime("CPU", program)
            buffers = [u.buffer.ensure_allocated() for u in get_call_arg_uops(call)]
            self._keep = getattr(self, "_keep", [])
            self._keep += buffers
            arguments = [buffers[i]._buf.va_addr for i in info.globals]
            arguments += [0 if v.expr == "core_id" else var_vals[v.expr] for v in info.vars]
            found.append((runtime.addr, arguments, info.global_size[0], info.name))
        assert Device["CPU"]
        return found

    def time_program(self, variants: list[tuple[int, list[int], int, str]]) -> float:
        address, first, tasks, _ = variants[0]
        n_args, n_calls = len(first), len(variants)
        table = (ctypes.c_uint64 * (n_args * n_calls))(*(a for v in variants for a in v[1]))

        def once(reps: int) -> float:
            threads = self.options.threads
            go, busy = threading.Barrier(threads), [0.0] * threads

            def work(i: int) -> None:
                go.wait()
                started = time.thread_time()
                self._driver(address, ctypes.addressof(table), n_calls, n_args, tasks, reps, i, threads)
                busy[i] = time.thread_time() - started

            workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return max(busy) / reps

        reps = max(n_calls, 3)
        while once(reps) * reps < 0.02:
            reps *= 4
        return statistics.median(once(reps) for _ in range(self.options.repeats))


if __name__ == "__main__":
    main()
