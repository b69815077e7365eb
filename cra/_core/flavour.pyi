"""How this core was compiled."""

build_flavour: str
compiler: str
