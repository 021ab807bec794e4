"""The proxy as its callers see it: real processes, real sockets, nothing replaced."""
