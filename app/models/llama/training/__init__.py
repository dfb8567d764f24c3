"""LoRA training (arXiv 2106.09685): gradients of adapters over a base that stays packed, ids in, an adapter out."""
