"""Conversations as plain text that cannot be lost: one file each, appended turn by turn, with an index that the text can always restore."""
