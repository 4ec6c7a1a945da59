<<<<<<< HEAD
"""The commands that read, write, check and draw data; they know options and the library, nothing of formats."""
=======
"""The commands that read, write, check and draw data: they know options and the library's functions, no formats."""
>>>>>>> main
