"""Measurements that are no tests: run by a make target, judged by the ranges in loadtest/ranges, kept as JSON."""
