"""Tests of the proxy's parts, each by itself."""
