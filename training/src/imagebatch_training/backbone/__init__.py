"""MobileNetV2 and its ImageNet weights: fetched, checked, in one kind of file."""
