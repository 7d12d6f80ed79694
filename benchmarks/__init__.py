"""Measurements beside the peers: `python -m benchmarks NAME`, one question a file; results are in docs/performance.md."""
