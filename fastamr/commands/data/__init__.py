"""The commands that read, write, check and draw data; they know options and library functions, no formats."""
