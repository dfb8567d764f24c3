"""Training data: conversations read, written, checked, taken from logs or made with a persona."""
