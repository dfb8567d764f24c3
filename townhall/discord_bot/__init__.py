"""A persona on Discord, over discord.py (extra `discord`)."""
