"""Where the example atlases are: at the top of a checkout, or packed in the wheel."""

import tarfile
from pathlib import Path

from cra.cli._exit import FileNotFound

_PACKAGE = Path(__file__).resolve().parent.parent
_REINSTALL = "install cra-core again, from a wheel"


def atlases() -> Path:
    """Return the folder of the example atlases in a checkout, else the archive in the installed package."""
    for place in (_PACKAGE.parent / "examples" / "atlases", _PACKAGE / "_data" / "atlases.tar.xz"):
        if place.exists():
            return place
    raise FileNotFound("the example atlases of this installation are missing", hint=_REINSTALL)


def example_atlas(name: str, into: Path) -> Path:
    """Return the folder of an example atlas; a packed one is unpacked in `into`, where it stays."""
    found = atlases()
    if found.is_dir():
        place = found / name
    else:
        place = into / name
        try:
            with tarfile.open(found) as packed:
                members = [member for member in packed if member.name.startswith(f"{name}/")]
                packed.extractall(into, members=members, filter="data")
        except tarfile.TarError as error:
            raise FileNotFound(f"`{found}` cannot be unpacked: {error}", hint=_REINSTALL) from None
    if not (place / "atlas.json").is_file():
        raise FileNotFound(f"example atlas `{name}` is missing from `{found}`", hint=_REINSTALL)
    return place
