"""The gRPC server: an adapter over the service core; imports service, wire, v1, errors and grpc."""
