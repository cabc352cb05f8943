"""The model in worker processes of this machine, without a server."""
