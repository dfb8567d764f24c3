"""Answers from a model on another server, in the place of the local one."""
