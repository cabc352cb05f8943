"""The Open Inference Protocol, version 2, over REST: Triton, KServe's servers, MLServer and others."""
