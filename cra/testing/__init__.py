"""What the tests of users import: clocks, faults, and the contract of a store."""
