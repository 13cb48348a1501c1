"""Experiments that show which objectives lose modes; needs torch, the digits also scikit-learn."""
