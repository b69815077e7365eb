def command() -> int:
    """Stub."""
    return 0

COMMANDS = {}
