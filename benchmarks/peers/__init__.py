"""Contenders: one worker module per library, each run in an environment of its own and driven through its stdin."""
