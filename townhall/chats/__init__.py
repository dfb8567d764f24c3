"""Chats that the server keeps: each a log in a folder, with swipes and branches, watched by any number of clients."""
