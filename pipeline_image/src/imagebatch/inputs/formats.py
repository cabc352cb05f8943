"""The image formats that are accepted.

Kept in a module of its own, so that a decoding process need not import anything else from here.
"""

# Pillow's names. Only these decoders are ever started: Pillow has others that call external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
