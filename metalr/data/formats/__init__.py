"""Files of rows in the formats that people have them in.

Every fault of a file is a `MetalrError` that names the file and, where the format has
lines, the line. Nothing here knows tasks: a row is a plain dict as the file has it.
"""
