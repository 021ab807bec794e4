"""Benchmarks: what a call costs in this proxy, beside what relaying alone costs in the same run; they gate nothing."""
