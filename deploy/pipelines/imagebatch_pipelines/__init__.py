"""The stages as pipelines of other orchestrators: one table (`stages`), a module that renders it for each."""
