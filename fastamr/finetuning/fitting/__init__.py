"""How a classifier is trained: on the update of the pre-training, with batches, loss, loop and folder of its own.

:mod:`.recipe` has the settings, :mod:`.labelled_clips` the batches, :mod:`.learner` what is computed from one,
:mod:`.classifier_step` the update, :mod:`.fit` the loop, :mod:`.keeping` the folder of a run that can be resumed, and
:mod:`.plain` the same in plain PyTorch.
"""
