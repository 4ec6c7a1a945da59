"""One update of pre-training: step, recording, precision, schedule and optimizer.

:class:`~fastamr.training.update.step.PretrainStep` is the whole; the loop around it is
:mod:`fastamr.training.pretrain`.
"""
