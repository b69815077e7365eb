"""What a user would pick instead, each in its strongest form."""
