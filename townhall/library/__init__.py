"""Libraries: documents of the user's own, read, cut into passages, indexed twice, and searched; see docs/library.md."""
