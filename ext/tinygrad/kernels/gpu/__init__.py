"""Kernels for OpenCL: the CPU's own sources where the driver runs on a CPU, OpenCL C with a coalesced layout everywhere else."""
