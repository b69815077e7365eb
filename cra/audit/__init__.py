"""Later readers of the record: what differs between two traces, and whether one can have happened as it is told."""
