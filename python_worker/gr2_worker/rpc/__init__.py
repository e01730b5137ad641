"""The gRPC side of the worker: the service, the conversions between proto and plain data, the thread
that verbs run on.
"""
