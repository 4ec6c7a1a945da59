"""The parts of a session on a GPU, each a process of its own: ``tools/gpu_session.py`` runs them and says why.

``common`` is what they share, ``workers`` spreads tasks over processes; ``rehearsal`` holds parts that misbehave.
"""
