"""``fastamr bench KIND``: the kinds, one file each; they measure with the library, print, and write into ``--out``."""
