"""Commands of the command line, one file each: ``run(arguments)`` parses its options and does the work."""
