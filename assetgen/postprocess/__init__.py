"""From maps to files: derived maps, sizes, engine profiles, encoding, previews; imports types, errors, check only."""
