"""Copied from assetgen/v1 (Apache-2.0) by plugins/blender/build.py. Do not edit."""
