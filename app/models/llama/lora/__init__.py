"""Low-rank adapters (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353): read, run over a base, merged, extracted, written."""
