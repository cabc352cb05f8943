"""What a developer calls: set-up, linters, tests, generated pages."""
