"""The image formats that are accepted, and the ends of their files' names.

Kept in a module of its own, so that a decoding process need not import anything else from here.
"""

# Pillow's names. Only these decoders are ever started: Pillow has others that call external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".jpg_large", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
"""Under which such files are found. The first bytes decide what a file is read as, never its name."""
