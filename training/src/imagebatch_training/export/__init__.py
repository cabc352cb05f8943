"""The trained model as the graphs that engines load, in every precision."""
