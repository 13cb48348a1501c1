"""Training data: packing folders into one file, and reading it back as arrays."""
