"""Weights, data, fine-tuning, evaluation and archiving of the model that imagebatch serves."""

import os

# OpenVINO's converter and NNCF tell their maker about every use, unless they believe to run under CI.
os.environ.setdefault("CI", "true")
os.environ.setdefault("NNCF_CI", "1")
