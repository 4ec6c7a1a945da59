"""Formats in JSON. A file is parsed once, whichever of these readers it belongs to; errors name the entry."""
