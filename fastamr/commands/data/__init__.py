"""The commands that read, write, check and draw data: they know options and the library's functions, no formats."""
