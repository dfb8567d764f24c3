"""The errors a person can cause above the model: personas, templates, a full window."""

from ext.tinygrad.errors import TownhallError


class PersonaError(TownhallError):
    """A persona that is missing or broken; names the file, the line and the fault."""


class TemplateError(TownhallError):
    """A chat template that cannot be used: it does not parse, refuses its input, or asks for too much work."""


class ContextError(TownhallError):
    """Tokens that do not fit the window; `needed` of `capacity`."""

    def __init__(self, message: str, needed: int, capacity: int):
        super().__init__(message)
        self.needed, self.capacity = needed, capacity


class PrefillError(TownhallError):
    """A text that no reply can begin with."""


class ModelError(TownhallError):
    """No model where the flags say; names the flag and how to get one."""


class SettingsError(TownhallError):
    """A settings file that cannot be used; names the file, the line, the key and what it may be."""


class LogError(TownhallError):
    """A log that is missing, no log, or held by another process; names the file and the way out."""


class CommandError(TownhallError):
    """A command of a session that cannot be done as it was typed; says what can."""
