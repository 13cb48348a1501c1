"""assetgen: tileable materials, style transfer and props from GANs, served to game engines over gRPC."""

__version__ = "0.1.0"
