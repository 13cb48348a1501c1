"""Load, faults, fuzzing and soaking: commands, and the tests that need little time."""
