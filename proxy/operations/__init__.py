"""One file an endpoint: parse, estimate, rewrite, read usage. Nothing here can touch money."""
