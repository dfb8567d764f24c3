"""A language model without weights, for tests and demonstrations: --model fake:echo, --model fake:script=FILE."""
