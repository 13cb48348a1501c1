"""Generated from proto/assetgen/v1 by proto/generate.py; imports grpc and protobuf only. Do not edit."""
