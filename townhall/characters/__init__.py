"""Character cards and lorebooks: data of others, read within bounds and kept as it came."""
