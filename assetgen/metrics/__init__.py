"""How good generated pictures are, in figures: pure functions of pictures and features; numpy and torch."""
