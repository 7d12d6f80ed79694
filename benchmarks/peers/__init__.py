"""Workers that train or run one toolkit each, ours included, in a process of their own: what benchmarks/worker.py talks to."""
