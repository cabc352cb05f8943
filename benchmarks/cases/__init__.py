"""The measurements that `benchmarks.run` starts, each in the environment that it needs."""
