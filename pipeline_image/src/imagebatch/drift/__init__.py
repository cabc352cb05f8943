"""Whether a run's images and answers are still like those of the baseline."""
