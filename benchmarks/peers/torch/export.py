"""The archive of stock TorchServe: the weights as TorchScript, as its documentation makes it.

Takes the file to write; the environment names the weights, see models.py.
"""

from __future__ import annotations

import sys

import torch
from models import load_network

if __name__ == "__main__":
    network, _, _ = load_network()
    with torch.inference_mode():
        torch.jit.trace(network, torch.zeros((1, 3, 224, 224))).save(sys.argv[1])
