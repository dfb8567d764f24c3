"""Measurements: `townhall bench` (command.py), and a script each for what needs large weights, a GPU or patience."""
