"""The peers: a folder with a lock for each, and the modules that their processes find on PYTHONPATH."""
