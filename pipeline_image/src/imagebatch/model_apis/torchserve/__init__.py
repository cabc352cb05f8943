"""TorchServe: inference, management, keys and shared memory."""
