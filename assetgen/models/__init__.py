"""Networks in PyTorch; nothing on the serving side imports this package."""
