"""Kernels for the CPU in C, compiled, scheduled and run by tinygrad; `CPUKernels` is the kernel set."""
