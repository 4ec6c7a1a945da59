"""The commands of ``fastamr``, one file each: ``run(words)`` parses its options and calls the library.

Nothing is computed here. Exit codes and the meaning of an option are part of the interface. What they share: the parser
(``options``), old and near spellings (``spelling``), and what lies below the command line (``settings``).
"""
