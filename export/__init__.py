"""Export: from training runs to a verified model package. Stays in the checkout, reached as ``assetgen export``."""
