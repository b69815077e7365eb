"""The verb: sessions, decisions, executions, approvals and replay."""
