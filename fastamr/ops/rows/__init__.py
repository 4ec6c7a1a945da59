"""The ops on flat rows that the fused stacks are made of; they carry no autograd and are not registered.

:mod:`.checks` and :mod:`.native` are shared by all of them; every other file is one op.
"""
