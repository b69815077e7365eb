"""The noun: atlases as they are read, judged and packed."""
