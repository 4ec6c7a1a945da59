"""Formats of rows and columns of text: one reader a form of table; errors name the line."""
