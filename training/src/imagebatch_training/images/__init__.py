"""Images and their labels: where they come from, how they are split, their pixels."""
