"""KServe's model server with an archive of imagebatch behind it."""
