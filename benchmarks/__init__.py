"""Speed and memory beside Keras and others: `python -m benchmarks`."""
