"""The commands of ``fastamr``, one file each: ``run(arguments)`` parses its options and calls the library.

Nothing is computed here. Exit codes and the meaning of an option are part of the interface.
"""
