"""What CRA costs, beside its floors and beside what a user would pick instead."""
