"""Releases: a new model is tried in the shadow, then on a share of the traffic, then on all of it, or sent back.

One folder is the truth, and every part reads it: ``LINE/current.json`` names the version that serves, ``release.json``
the release under way, ``releases.jsonl`` what happened and why, ``replicas/`` what each replica measures. ``distilrec
deploy`` writes the wish, the controller beside the endpoint decides step by step, replicas follow.
"""
