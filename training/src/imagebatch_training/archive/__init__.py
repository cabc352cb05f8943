"""The archive that TorchServe loads, with its golden images and its parity certificate."""
