"""The demonstration: a ticket desk, an agent with a script, and a story that checks itself."""
