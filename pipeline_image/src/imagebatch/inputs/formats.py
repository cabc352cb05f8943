"""Which image formats are known. A module of its own: a process that decodes imports hardly more."""

# Pillow's names. Only these decoders are ever started: Pillow has others that call external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
