"""A question rewritten by the local model before it is asked, so that it can be understood alone."""
