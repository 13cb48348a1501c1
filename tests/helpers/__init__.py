"""Builders shared by the tests; they import numpy, onnx and the package code only."""
