"""The bounds inside which an atlas is read."""

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How large an atlas may be; reading stops at the first bound that is passed.

    `max_schema_values` and `max_pattern_steps` are over all JSON Schemas of the atlas, equal ones counted once; a
    step is a character of a pattern, times its counts. `max_example_steps` bounds what holding examples against their
    schemas could take at worst. Of more than `max_problems` problems only
    the first are reported.
    """

    max_total_bytes: int = 32 << 20
    max_file_bytes: int = 4 << 20
    max_json_bytes: int = 4 << 20
    max_archive_bytes: int = 16 << 20
    max_files: int = 2_000
    max_compression_ratio: int = 100
    max_json_depth: int = 64
    max_json_nodes: int = 250_000
    max_actions: int = 2_000
    max_policies: int = 5_000
    max_capabilities: int = 1_000
    max_context_packs: int = 1_000
    max_schema_values: int = 60_000
    max_pattern_steps: int = 1_000_000
    max_example_steps: int = 40_000_000
    max_problems: int = 500
    # NOTE: package managers (uv for one) install by hard link; a system that shares folders with strangers can refuse.
    allow_hard_links: bool = True


DEFAULT_BOUNDS = Bounds()
