"""Which clips an update sees, and how they reach the device.

Order and masks follow from the seed and the update's number alone, so that a run can be continued to the bit.
"""
