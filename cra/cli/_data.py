"""Where the files are that commands bring along: in the wheel, or at the top of a checkout."""

from pathlib import Path

from cra.cli._exit import FileNotFound

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = {"atlases": "examples/atlases", "schemas": "specs/schemas"}


def data_folder(name: str) -> Path:
    """Return the folder `atlases` or `schemas`; a checkout's own goes before an installed copy."""
    for place in (_PACKAGE.parent / _CHECKOUT[name], _PACKAGE / "_data" / name):
        if place.is_dir():
            return place
    raise FileNotFound(
        f"the {name} that belong to this installation are missing", hint="install cra-core again, from a wheel"
    )


def example_atlas(name: str) -> Path:
    """Return the folder of an example atlas."""
    place = data_folder("atlases") / name
    if not place.is_dir():
        raise FileNotFound(f"example atlas `{name}` is missing from `{place.parent}`")
    return place
