"""The parts of a session on a GPU, each a process of its own: ``tools/gpu_session.py`` runs them and says why.

``common`` is what they share, ``workers`` spreads tasks over processes, ``judging`` says how exact a result must be and
``candidates`` with which tiles a kernel can run; ``progress`` is a plugin for pytest.
"""
