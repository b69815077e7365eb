"""Who is calling: keys, tokens, and what a proxy says."""
