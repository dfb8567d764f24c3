"""A page in the browser to talk to the personas: it asks a server over the public API, and keeps what was said as `townhall chat` does."""
