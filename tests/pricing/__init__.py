"""Tests of prices, amounts and the operator's file."""
