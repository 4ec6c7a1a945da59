"""The commands of ``fastamr``, one file each: ``run(words)`` parses its options and calls the library.

Nothing is computed here. ``run`` raises ``UsageError`` for wrong words, ``SystemExit`` for an exit code of its own, and
what the library raises; exit codes and the meaning of an option are part of the interface. What all share is the parser
(``options``), old and near spellings (``spelling``), and what lies below the command line's words (``settings``).
"""
