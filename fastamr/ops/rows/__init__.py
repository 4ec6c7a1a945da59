"""The ops on flat rows that the fused stacks are made of; they carry no autograd and are not registered.

:mod:`.checks` (arguments) and :mod:`.native` (the C++ back end) are shared by all of them; every other file is one op.
"""
