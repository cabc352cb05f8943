"""From a training to what serves: gates, registry, the model server, the way back."""
