"""What images look like: statistics and thumbnails of a bounded sample, made in confined processes."""
