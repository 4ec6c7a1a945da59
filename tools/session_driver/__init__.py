"""What keeps a session on a GPU going whatever its parts do; needs Python's standard library only.

``results`` keeps what the parts say, ``processes`` runs them and ends them, ``watchdog`` ends them where the session
itself was ended.
"""
