"""The gRPC side of the worker: the service, the conversions between proto and plain data, the thread verbs run on."""
