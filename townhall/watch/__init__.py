"""Watch mode: a text file is the conversation, and the reply is written into it."""
