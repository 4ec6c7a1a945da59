"""The commands that train, probe and use models; settings and defaults live in the dataclasses that they build."""
