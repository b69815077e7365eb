"""Where events and session state are kept."""
